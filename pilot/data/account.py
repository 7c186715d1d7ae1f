"""Accounts of the rows that were read: every row that is left out is counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilot.data.intake.survey import Survey
from pilot.data.quarantine import Quarantine

IN_TEST = "the picture is in the test split"
NOT_CHOSEN = "more than num_train or num_test asks for"
NUM_SHOWN = 8


@dataclass
class SplitCounts:
    """Row counts of one split: each of the `num_read` rows is in exactly one of the other counts."""

    num_read: int
    num_skipped: Counter[str]
    num_rejected: int
    num_unusable: int = 0
    num_duplicates: int = 0
    num_not_chosen: int = 0
    num_taken: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return all counts."""
        return vars(self) | {"num_skipped": dict(sorted(self.num_skipped.items()))}


@dataclass(frozen=True)
class SourceCounts:
    """Row counts of a source: each of the `num_read` rows is in exactly one of the other counts.

    Attributes:
        num_read: number of distinct rows; a row that is read for both splits counts once, or twice if both use it.
        taken: number of records by split.
        quarantined: number of rows by reason.
        skipped: number of rows by reason.
        left_out: number of records by column that is not an attribute, since its value is neither text nor number.
    """

    num_read: int
    taken: Mapping[str, int]
    quarantined: Mapping[str, int]
    skipped: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Assert that no row is lost or counted twice."""
        parts = [sum(counts.values()) for counts in (self.taken, self.quarantined, self.skipped)]
        assert self.num_read == sum(parts), f"{self.num_read} rows read, {parts} taken, quarantined, skipped"

    def to_json(self) -> dict[str, Any]:
        """Return all counts for the data card."""
        return {name: value if isinstance(value, int) else dict(value) for name, value in vars(self).items()}

    def __str__(self) -> str:
        """Return the closing line of a command."""
        text = (
            f"{self.num_read} rows read: {self.taken['train']} for training, {self.taken['test']} for testing, "
            f"{sum(self.quarantined.values())} in quarantine, {sum(self.skipped.values())} skipped."
        )
        for said, counts in (
            ("In quarantine", self.quarantined),
            ("Skipped", self.skipped),
            ("No text or number, so no attribute", self.left_out),
        ):
            text += f" {said}: {format_counts(counts)}." if counts else ""
        return text


def combine_counts(
    surveys: Sequence[Survey], accounts: Mapping[str, SplitCounts], quarantine: Quarantine, left_out: Mapping[str, int]
) -> SourceCounts:
    """Combine the accounts of both splits.

    Args:
        surveys: a single one if test rows are held out of the training rows, else one per split.
        accounts: by split, after all records are made.
        quarantine: all rows that cannot be used.
        left_out: see `SourceCounts`.
    """
    settled = set().union(*(survey.used | survey.rejected for survey in surveys))
    skipped = {item: reason for survey in surveys for item, reason in survey.skipped.items() if item not in settled}
    reasons = Counter(skipped.values())
    for account in accounts.values():
        reasons += Counter({IN_TEST: account.num_duplicates, NOT_CHOSEN: account.num_not_chosen})
    num_read = sum(survey.num_read for survey in surveys) - _num_read_twice(surveys)
    taken = {split: account.num_taken for split, account in accounts.items()}
    return SourceCounts(num_read, taken, dict(quarantine.reasons()), dict(reasons.most_common()), left_out)


def _num_read_twice(surveys: Sequence[Survey]) -> int:
    """Count the rows that the second survey found again, except those that both splits use."""
    if len(surveys) < 2:
        return 0
    one, other = surveys
    unused = (one.rejected | one.skipped.keys()) & (other.rejected | other.skipped.keys())
    return len(unused) + len(one.used & other.skipped.keys()) + len(other.used & one.skipped.keys())


def format_counts(counts: Mapping[str, int]) -> str:
    """Format the most frequent names with their counts, then the sum of the other counts."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} ({count})" for name, count in ranked[:NUM_SHOWN]]
    shown += [f"for other reasons ({sum(count for _, count in ranked[NUM_SHOWN:])})"] if ranked[NUM_SHOWN:] else []
    return "; ".join(shown)
