"""`imported`: records written by `pilot-bench data import`, and the rows that it rejected."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pilot.config.base import Model
from pilot.data.quarantine import FILE
from pilot.data.record import COLUMNS, earlier_turns
from pilot.data.rows import Place, RawBox, RawTurn, Rejected, Row, Rows, Skipped
from pilot.data.tables import READ_BYTES, check_columns
from pilot.errors import UserError
from pilot.io.atomic import read_jsonl
from pilot.io.digest import sha256_bytes

BATCH = 256


class Options(Model):
    """Options of `imported`: the folder given to `data import --to`; `kind` is the task's kind."""

    records: str
    kind: str


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield the rows that the import rejected, then the rows of a split.

    Raises:
        UserError: missing records, or a file that the import cannot have written.
    """
    folder = root / options.records
    yield from _rejected(folder / FILE)
    path = folder / "records.parquet"
    if not path.is_file():
        raise UserError(f"{path}: no such file. Import your data first: pilot-bench data import ... --to {folder}.")
    for number, row in enumerate(_rows(path)):
        place = Place(options.records, number)
        if row["image"] and sha256_bytes(row["image"]) != row["image_sha256"]:
            raise UserError(
                f"{path}: row {number}, field image_sha256: expected the digest of the image. The file was altered: "
                "import the data again."
            )
        try:
            yield _row(place, row, options.kind, split)
        except (TypeError, ValueError, AttributeError):
            yield Rejected(place, "attributes", "expected a record as `pilot-bench data import` writes it")


def _rejected(path: Path) -> Iterator[Rejected]:
    if not path.is_file():
        return
    try:
        for row in read_jsonl(path):
            yield Rejected(Place(str(row["file"]), row["row"]), str(row["field"]), str(row["reason"]))
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged or altered ({error}). Import the data again.") from error


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    check_columns(path, COLUMNS)
    try:
        with parquet.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({error}). Import the data again.") from error


def _row(place: Place, row: Mapping[str, Any], kind: str, split: str) -> Row | Skipped:
    if row["task"] != kind:
        return Skipped(place, f"kind {row['task']}")
    if row["split"] != split:
        return Skipped(place, f"split {row['split']}")
    ground = kind == "ground"
    earlier = (
        RawTurn(question, answer, RawBox(box, "fractions_xyxy") if box else None)
        for question, answer, box in earlier_turns(row)
    )
    return Row(
        place=place,
        id=row["id"] or "",
        image=row["image"] or b"",
        instruction=row["instruction"] or "",
        answer="" if ground else row["answer"] or "",
        references=() if ground else tuple(text or "" for text in row["references"] or ()),
        attributes={name: str(value) for name, value in json.loads(row["attributes"]).items()},
        box=RawBox(tuple(row["box"] or ()), "fractions_xyxy") if ground else None,
        earlier=tuple(earlier),
    )
