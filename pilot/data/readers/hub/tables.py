"""Rows of the hub's tables: through `datasets` at a pinned revision, or from local parquet files."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.data.readers.files import GUIDE, below, matching
from pilot.data.readers.hub.sets import dataset_names
from pilot.data.rows import Place
from pilot.data.tables import READ_BYTES
from pilot.errors import UserError

BATCH = 32
"""Number of rows in memory at a time, with their images."""

Item = tuple[Place, int, Mapping[str, Any]]
"""Location of a row, its number over all files from 0, and its values by column."""


@dataclass(frozen=True)
class Table:
    """One split of one configuration: from `files` below `root` if given, else from the hub."""

    root: Path
    dataset: str
    revision: str
    name: str | None
    split: str
    files: tuple[str, ...]
    streaming: bool


def read_items(table: Table, columns: Sequence[str], image: str | None) -> Iterator[Item]:
    """Return an iterator over a table's rows with the named columns; leave the column `image` undecoded.

    Raises:
        UserError: a file or the hub cannot be read, or a column is missing.
    """
    wanted = list(dict.fromkeys(columns))
    return _local(table, wanted) if table.files else _remote(table, wanted, image)


def _paths(table: Table) -> list[Path]:
    paths: list[Path] = []
    for name in table.files:
        try:
            found = [path for path in matching(table.root, name) if path.exists()]
        except ValueError as error:
            raise UserError(f"{table.root / name}: not a usable pattern ({error}). Use * and ? only.") from error
        if not found:
            raise UserError(f"{table.root / name}: no such parquet file of {table.dataset}. {GUIDE}")
        paths += found
    return paths


def _local(table: Table, columns: list[str]) -> Iterator[Item]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    for path in _paths(table):
        where = below(path, table.root)
        try:
            with parquet.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as file:
                _check_columns(str(path), columns, file.schema_arrow.names)
                row = 0
                for batch in file.iter_batches(batch_size=BATCH, columns=columns):
                    for item in batch.to_pylist():
                        yield Place(where, row), number, item
                        row, number = row + 1, number + 1
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: not a readable parquet file ({reason}). Download it again. {GUIDE}") from error


def _remote(table: Table, columns: list[str], image: str | None) -> Iterator[Item]:
    import datasets

    where = _place(table, table.dataset)
    try:
        name, rows = _loaded(table)
        where = _place(table, name)
        if rows.column_names is not None:
            _check_columns(where, columns, rows.column_names)
        rows = rows.select_columns(columns)
        if image is not None:
            rows = rows.cast_column(image, datasets.Image(decode=False))
        for number, item in enumerate(rows):
            yield Place(where, number), number, item
    except UserError:
        raise
    except Exception as error:  # the hub's client, file systems and builders each raise different types of errors
        raise UserError(_load_failure(table, where, error)) from error


def _place(table: Table, dataset: str) -> str:
    return f"{dataset}@{table.revision}/{table.name or 'default'}/{table.split}"


def _loaded(table: Table) -> tuple[str, Any]:
    """Return the name under which the hub has the data set, the given one or a new one, and its rows."""
    import datasets

    names = dataset_names(table.dataset)
    for name in names:
        try:
            rows = datasets.load_dataset(
                name, table.name, split=table.split, revision=table.revision, streaming=table.streaming
            )
        except datasets.exceptions.DatasetNotFoundError:
            if name == names[-1]:
                raise
        else:
            if name != table.dataset:
                logging.getLogger(__name__).warning("data set %s was read as %s", table.dataset, name)
            return name, rows
    raise AssertionError("a data set has a name")


def _load_failure(table: Table, where: str, error: Exception) -> str:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    others = "".join(f"; also tried as {name}" for name in dataset_names(table.dataset)[1:])
    return (
        f"{where}: cannot be loaded from the hub ({reason}{others}). Check dataset, name, split and revision. Without "
        f"network access, run this on a machine that has it: hf download {table.dataset} --repo-type dataset --revision"
        f" {table.revision} --local-dir DIR; put its .parquet files below {table.root} and name them in the options "
        f"train_files and test_files (for images in a separate table: image_table). {GUIDE}"
    )


def _check_columns(where: str, columns: Sequence[str], present: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in present]:
        raise UserError(
            f"{where}: column {', '.join(map(repr, missing))} is missing (found: {', '.join(present)}). "
            f"Name the columns in the option columns. {GUIDE}"
        )
