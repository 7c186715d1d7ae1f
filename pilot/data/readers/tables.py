"""Line-by-line reader of untrusted tables: a quote that is never closed invalidates only its line.

The `csv` module reads such a quote up to the next one, perhaps hundreds of lines later. If the result is not a valid
record of the table's width, or holds a line with another file in the place of the record's own, the line with the quote
is rejected, and reading continues at the next line.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

Record = tuple[int, list[str] | str]
"""Number of a record's last line with its fields, or number of an unreadable line with the reason."""


class _Lines:
    """Iterator over lines that can be given back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._again = iter(lines), deque[str]()
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        self.taken.append(self._again.popleft() if self._again else next(self._lines))
        return self.taken[-1]

    def push_back(self) -> None:
        """Keep the first of the taken lines; give back the others."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def records(lines: Iterable[str], separator: str) -> Iterator[Record]:
    """Yield the records of a table, header first; skip empty lines."""
    source, last, width = _Lines(lines), 0, 0
    table = csv.reader(source, delimiter=separator, strict=True)
    while True:
        source.taken.clear()
        problem, fields = "", list[str]()
        try:
            fields = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"not readable as a table ({error})"
        if not problem and width and len(source.taken) > 1 and not _is_one_row(fields, separator, width):
            problem = "a quoted text looks like several rows"
        if problem and len(source.taken) > 1:
            problem = f"unclosed quote? lines {last + 1} to {last + len(source.taken)}: {problem}"
            source.push_back()
        last += len(source.taken)
        width = width or len(fields)
        if problem or fields:
            yield last, problem or fields


def _is_one_row(fields: Sequence[str], separator: str, num_columns: int) -> bool:
    """Check fields with line breaks: one per column, and no later line of a field is a row like this one."""
    later = [line.split(separator) for field in fields for line in field.splitlines()[1:]]
    return len(fields) == num_columns and not any(_is_alike(cells, fields) for cells in later)


def _is_alike(cells: Sequence[str], fields: Sequence[str]) -> bool:
    """Check for a row with a file of the same kind in the same column; commas alone do not make text a row."""
    pairs = zip(cells, fields, strict=False)
    return len(cells) == len(fields) and any(PurePath(a).suffix == PurePath(b).suffix != "" for a, b in pairs)
