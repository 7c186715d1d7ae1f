"""Description of a source that is read from files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.config.base import Model
from pilot.data.rows import Rows


@dataclass(frozen=True)
class FileSource:
    """A source that is read from files.

    Attributes:
        read: `read(options, root, split)` yields the rows of `train` or `test`, identical at every call; paths in the
            options are relative to `root`.
        options_model: model of the task's `options`. A field `kind` is filled in from the task; a field `images` is
            the folder that image references are relative to (without it, they are relative to `root`).
        kind: `vqa`, `caption` or `ground`; None if the task's kind determines how rows are read.
        origin: authors of the data, and where they come from.
        licence: licence of annotations and images.
        own_ids: whether the rows' ids are already unique over both splits and are kept unchanged.
    """

    read: Callable[[Any, Path, str], Rows]
    options_model: type[Model]
    kind: str | None
    origin: str
    licence: str
    own_ids: bool = False
