"""What training knows of experiment trackers (`pilot.report.tracking`): a function to call when there may be news."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

Track = Callable[[Path, Sequence[str]], AbstractContextManager[Callable[[], None]]]
"""Begin reports of a run folder to trackers; yield a function that reports what is new."""


def track_nothing(run_dir: Path, trackers: Sequence[str]) -> AbstractContextManager[Callable[[], None]]:
    """Report to no tracker."""
    return nullcontext(lambda: None)
