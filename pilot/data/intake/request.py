"""A request for records from a source, which intake fulfils."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.data.quarantine import DEFAULT_MAX_SHARE
from pilot.data.readers.file_source import FileSource

HELD_OUT = "held_out"


@dataclass(frozen=True)
class Request:
    """Request for records from a source.

    Attributes:
        where: scenario and field, for the start of messages.
        name: name of the source in records and ids.
        source: reader, options model and description of the source.
        options: options as given in the scenario, with `held_out` if test rows are a share of the training images.
        root: folder that paths in the options are relative to.
        kind: `vqa`, `caption` or `ground`.
        num_train: number of training records; None for all.
        num_test: number of test records; None for all.
        seed: seed of the selection.
        max_quarantine: largest allowed share of unusable rows.
    """

    where: str
    name: str
    source: FileSource
    options: Mapping[str, Any]
    root: Path
    kind: str
    num_train: int | None
    num_test: int | None
    seed: int
    max_quarantine: float = DEFAULT_MAX_SHARE
