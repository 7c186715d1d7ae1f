"""Parquet files whose images do not fit in memory: written and read a part at a time.

A file has one row group, in which every column is stored as a whole. Rows that are written go to a temporary Arrow
file first, from which pyarrow then reads each column through memory-mapped pages, and is told to drop those that it has
written. The bytes are those of a table in memory: pyarrow cuts pages after batches of 1,024 rows, so the images are in
chunks of as many; all other columns are small and are joined.
"""

import io
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilot.errors import UserError
from pilot.io.atomic import damaged, replace_file

if TYPE_CHECKING:
    import pyarrow

CHUNK_ROWS = 1024
"""Rows of a chunk: pyarrow's default `write_batch_size`."""
READ_ROWS = 32
"""Rows that are read at a time."""
READ_BYTES = 1 << 20
"""Buffer of a column; without one, or with `pre_buffer`, pyarrow reads the column of a row group as a whole."""
RELEASE_BYTES = 16 << 20
"""Bytes that are written before memory-mapped pages are dropped."""


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], schema: "pyarrow.Schema") -> None:
    """Write rows as one atomic parquet file; equal rows give equal bytes. Memory holds one chunk of images.

    Raises:
        UserError: the folder cannot be written to.
    """
    import pyarrow

    remaining = iter(rows)
    first, following = list(islice(remaining, CHUNK_ROWS)), list(islice(remaining, 1))
    if following:
        replace_file(path, lambda part: _write_large(part, chain(first, following, remaining), schema))
    else:
        replace_file(path, lambda part: _write_parquet(pyarrow.Table.from_pylist(first, schema=schema), part, None))


def _write_large(part: Path, rows: Iterator[Mapping[str, Any]], schema: "pyarrow.Schema") -> None:
    import pyarrow

    spooled = part.with_name("rows.arrow")
    with pyarrow.OSFile(str(spooled), "wb") as file, pyarrow.ipc.new_file(file, schema) as writer:
        while chunk := list(islice(rows, CHUNK_ROWS)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(chunk, schema=schema))
    with spooled.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    table = pyarrow.ipc.open_file(pyarrow.py_buffer(pages)).read_all()
    for place, field in enumerate(schema):
        if not pyarrow.types.is_binary(field.type):
            table = table.set_column(place, field, table.column(place).combine_chunks())
    _write_parquet(table, part, pages)


def _write_parquet(table: "pyarrow.Table", part: Path, pages: mmap.mmap | None) -> None:
    from pyarrow import parquet

    with _Output(part, pages) as file:
        parquet.write_table(table, file, compression="zstd", row_group_size=max(1, len(table)))


class _Output(io.FileIO):
    """A new file; while it is written, pages of its source are dropped from this process's memory."""

    def __init__(self, path: Path, pages: mmap.mmap | None) -> None:
        super().__init__(path, "w")
        self._pages, self._since = pages, 0

    def write(self, data: Any) -> int:
        """Write everything, unlike `FileIO`."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += super().write(view[done:]) or 0
        self._since += done
        if self._pages is not None and self._since >= RELEASE_BYTES:
            self._pages.madvise(mmap.MADV_DONTNEED)
            self._since = 0
        return done


def iterate_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet file with the named columns, a few in memory at a time; raises as `read_table`."""
    import pyarrow
    from pyarrow import parquet

    check_columns(path, columns)
    try:
        with parquet.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as file:
            for batch in file.iter_batches(READ_ROWS, columns=list(columns)):
                yield from batch.select(list(columns)).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(path, f"not a readable parquet file: {error}") from error


def read_table(path: Path, columns: Sequence[str], **equal: str) -> "pyarrow.Table":
    """Read the named columns of a parquet file as a whole; `equal` selects rows by a column's value.

    Raises:
        UserError: a missing file, not parquet, or a missing column (the message names the file and the column).
    """
    import pyarrow
    from pyarrow import parquet

    check_columns(path, columns)
    try:
        filters = [(name, "==", value) for name, value in equal.items()] or None
        return parquet.read_table(path, columns=list(columns), filters=filters)
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(path, f"not a readable parquet file: {error}") from error


def check_columns(path: Path, columns: Sequence[str]) -> Sequence[str]:
    """Check that a file is parquet and has the columns; return all its columns. Raises as `read_table`."""
    import pyarrow
    from pyarrow import parquet

    if not path.is_file():
        raise UserError(f"{path}: no such file. Build the scenario's data first: pilot-bench data build.")
    try:
        present = parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(path, f"not a readable parquet file: {error}") from error
    if missing := [name for name in columns if name not in present]:
        raise UserError(
            f"{path}: column {', '.join(map(repr, missing))} is missing (found: {', '.join(present)}). "
            "Add it, or remove the file and build the data again: pilot-bench data build."
        )
    return list(present)
