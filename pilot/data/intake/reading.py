"""Rows of a source that are read more than once: from the source again, or from a file if it may be read only once."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import IO

from pydantic import TypeAdapter

from pilot.data.rows import KeptImage, Row, Rows, Skipped
from pilot.io.spool import Spool


def keep_image(row: Row, kept: Spool) -> Row:
    """Move the image that a row holds to the disk."""
    return replace(row, image=KeptImage(kept.add(row.image))) if isinstance(row.image, bytes) else row


class ReadOnce:
    """A reader that keeps its rows on disk when it is called first, and repeats them from there.

    Args:
        read: yields all rows.
        kept: receives their images.

    Repeated rows that are no examples have lost their reasons; the first pass has counted them.
    """

    def __init__(self, read: Callable[[], Rows], kept: Spool) -> None:
        self._read, self._kept = read, kept
        self._file: IO[str] | None = None

    def __call__(self) -> Rows:
        """Yield all rows."""
        return self._first() if self._file is None else self._again(self._file)

    def _first(self) -> Rows:
        file = tempfile.TemporaryFile("w+", dir=self._kept.folder, encoding="utf-8")  # noqa: SIM115 (read later)
        for row in self._read():
            kept = keep_image(row, self._kept) if isinstance(row, Row) else row
            values = _adapter().dump_python(kept) if isinstance(kept, Row) else {"place": vars(kept.place)}
            file.write(json.dumps(values) + "\n")
            yield kept
        self._file = file

    def _again(self, file: IO[str]) -> Rows:
        file.seek(0)
        for line in file:
            values = json.loads(line)
            place = values["place"]
            yield _adapter().validate_python(values) if "id" in values else Skipped(place, "not an example")


@cache
def _adapter() -> TypeAdapter[Row]:
    return TypeAdapter(Row)
