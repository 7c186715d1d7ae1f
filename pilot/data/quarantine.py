"""Quarantine of rows that cannot be used: list of rows, counts by reason, and an error if there are too many."""

import re
from collections import Counter
from pathlib import Path

from pilot.data.rows import Rejected
from pilot.errors import UserError
from pilot.io.atomic import write_jsonl

FILE = "quarantine.jsonl"
FAILED = "quarantine.failed.jsonl"
"""Unusable rows of the last failed intake; `FILE` lists those of the intake that wrote the records beside it."""
DEFAULT_MAX_SHARE = 0.01
NUM_SHOWN = 5
_VARIABLE_PARTS = re.compile(r"'[^']*'|\"[^\"]*\"|(?<![\w.])[-+]?\d[\w.+-]*")


class Quarantine:
    """Collection of rejected rows; a row that is read twice (once per split) is listed once."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, int | str], Rejected] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, rejected: Rejected, example: int | str = 0) -> None:
        """Add a row; `example` distinguishes examples of one row, such as the questions of a conversation."""
        key = (rejected.place.file, f"{type(rejected.place.row).__name__}:{rejected.place.row}", example)
        self._rows.setdefault(key, rejected)

    def reasons(self) -> list[tuple[str, int]]:
        """Count rows by `field: reason`, most frequent first; replace values specific to a row with `...`."""
        counts = Counter(f"{row.field}: {_VARIABLE_PARTS.sub('...', row.reason)}" for row in self._rows.values())
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

    def write(self, path: Path) -> None:
        """Write file, row, field and reason of every row in reading order."""
        write_jsonl(
            path,
            [
                {
                    "file": escape_surrogates(r.place.file),
                    "row": escape_surrogates(r.place.row) if isinstance(r.place.row, str) else r.place.row,
                    "field": escape_surrogates(r.field),
                    "reason": escape_surrogates(r.reason),
                }
                for r in self._rows.values()
            ],
        )

    def check(self, where: str, what: str, num_bad: int, num_all: int, max_share: float) -> None:
        """Raise an error if the share of bad rows exceeds the limit.

        Args:
            where: scenario and task, or command.
            what: what was checked, for example `rows of train.json`.
            num_bad: number of bad rows.
            num_all: number of all rows.
            max_share: largest allowed share.

        Raises:
            UserError: too many bad rows; names the most frequent reasons, the first row, and how to allow more.
        """
        if num_bad <= max_share * num_all:
            return
        share, first = num_bad / num_all, next(iter(self._rows.values()))
        shown = "; ".join(f"{reason} ({count})" for reason, count in self.reasons()[:NUM_SHOWN])
        enough = min(1.0, round(share + 0.0005, 3))
        raise UserError(
            f"{where}: {num_bad} of {num_all} {what} cannot be used ({share:.1%}; max_quarantine allows "
            f"{max_share:.1%}). Most frequent reasons: {shown}. First: {escape_surrogates(first.place.file)}, row "
            f"{first.place.row}. Correct them, or allow more with max_quarantine (here at least {enough})."
        )


def escape_surrogates(text: str) -> str:
    """Escape characters that cannot be encoded as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
