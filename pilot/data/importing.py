"""`pilot-bench data import`: a user's file and images as records that a scenario names in one line."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pilot.data.account import SourceCounts
from pilot.data.build import write_intake
from pilot.data.catalogue import READERS, datasets_folder
from pilot.data.intake.request import HELD_OUT, Request
from pilot.data.quarantine import DEFAULT_MAX_SHARE
from pilot.data.readers.own import JSON
from pilot.errors import UserError
from pilot.io.atomic import write_text
from pilot.io.text import first_row

NAME = "abcdefghijklmnopqrstuvwxyz0123456789_-"
NUM_CLIENTS = 3
_SCENARIO = """\
# Written by `pilot-bench data import`; see docs/own-data.md.
name: {name}
title: {title}
data_seed: 0
partition_seed: 0
methods: [pilot, fedavg]
seeds: [0, 1, 2]
validation_fraction: 0.1
local_test_fraction: 0.1
min_client_examples: {min_client_examples}
tasks:
"""
_TASK = """\
  - name: {name}
    kind: {kind}
    source: imported
    options: {{records: {records}}}
    num_train: {num_train}
    num_test: {num_test}
    num_clients: {num_clients}
    partition: {{kind: iid}}
    lm_eval_task: pilot_{kind}
"""


@dataclass(frozen=True)
class ImportRequest:
    """Request to import a file.

    Attributes:
        file: `.jsonl`, `.json`, `.csv` or `.tsv`; read by `readers.own` or, with conversations, `readers.llava_json`.
        images: folder that image references are relative to.
        kind: `vqa`, `caption` or `ground`.
        name: name of the task, and prefix of the records' ids.
        to: output folder.
        held_out: share of the images whose rows become the test split; None if the file marks the test rows.
        options: further options of the reader.
        seed: seed of the held-out share.
        max_quarantine: largest allowed share of unusable rows.
        licence: licence of the data, for the card.
    """

    file: Path
    images: Path
    kind: str
    name: str
    to: Path
    held_out: float | None = None
    options: tuple[tuple[str, Any], ...] = ()
    seed: int = 0
    max_quarantine: float = DEFAULT_MAX_SHARE
    licence: str = ""


@dataclass(frozen=True)
class ImportResult:
    """Row counts of an import, and the text of a scenario file with the task."""

    total: SourceCounts
    scenario: str

    @property
    def task(self) -> str:
        """Lines of the task in the scenario file."""
        return self.scenario[self.scenario.index("tasks:\n") + len("tasks:\n") :]


def import_data(request: ImportRequest, progress: Callable[[int, int], None]) -> ImportResult:
    """Check the request and its files; write `records.parquet`, data card, contact sheet and `quarantine.jsonl`.

    Raises:
        UserError: an invalid name, a missing image folder, an unreadable file, no usable row in a split, or too many
            unusable rows.
    """
    if not request.name or not set(request.name) <= set(NAME) or request.name[0] in "_-":
        raise UserError(f"--name: expected lower-case letters, digits, - and _, got {request.name!r}. Choose another.")
    if not request.images.is_dir():
        raise UserError(f"--images: {request.images}: no such folder. Name the folder that image paths start from.")
    reader = _reader(request.file)
    source = READERS[reader]
    source = replace(source, origin=f"{source.origin}: {request.file.name}", licence=request.licence or source.licence)
    options: dict[str, Any] = {"file": str(request.file), "images": str(request.images), **dict(request.options)}
    options |= {HELD_OUT: request.held_out} if request.held_out is not None else {}
    where = f"import of {request.file}"
    intake = Request(
        where, request.name, source, options, Path(), request.kind, None, None, request.seed, request.max_quarantine
    )
    _, total = write_intake(request.to, request.name, intake, progress)
    return ImportResult(total, _scenario(request, total))


def _reader(file: Path) -> str:
    """Return `own`, or `llava-json` if the first row of a JSON file has conversations."""
    first = first_row(file) if file.suffix.lower() in JSON else None
    return "llava-json" if isinstance(first, dict) and "conversations" in first else "own"


def _scenario(request: ImportRequest, total: SourceCounts) -> str:
    train, test, bad = total.taken["train"], total.taken["test"], sum(total.quarantined.values())
    clients = max(1, min(NUM_CLIENTS, train // 2))
    scenario = _SCENARIO.format(
        name=request.name,
        title=json.dumps(f"{request.name}, from {request.file.name}"),
        min_client_examples=max(1, train // (2 * clients)),
    ) + _TASK.format(
        name=request.name,
        kind=request.kind,
        records=json.dumps(_below_datasets(request.to)),
        num_train=train,
        num_test=test,
        num_clients=clients,
    )
    share = bad / (bad + train + test)
    return scenario + (f"    max_quarantine: {math.ceil(1000 * share) / 1000}\n" if share > DEFAULT_MAX_SHARE else "")


def _below_datasets(folder: Path) -> str:
    """Return a folder's path for the option `records`: relative to `$PILOT_DATASETS` if it is inside that folder."""
    root, path = datasets_folder().resolve(), folder.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def write_scenario(path: Path, imported: ImportResult) -> None:
    """Write a scenario file with the imported task only.

    Raises:
        UserError: the file exists (it may hold a user's work), or cannot be written.
    """
    if path.exists():
        raise UserError(f"--scenario: {path} exists. Name a new file, or add the task below to it:\n{imported.task}")
    write_text(path, imported.scenario)


def reader_options(boxes: str | None, forms: Sequence[str], keep_turns: bool) -> tuple[tuple[str, Any], ...]:
    """Collect the readers' options from those of the command line; omit options that were not given."""
    stated: dict[str, Any] = {"box_form": boxes, "forms": tuple(forms) or None, "turns": "keep" if keep_turns else None}
    return tuple((name, value) for name, value in stated.items() if value is not None)
