"""Progress output on standard error: a bar in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, int], None]
SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress(label: str) -> Iterator[Advance]:
    """Yield `advance(done, total)`; both numbers may grow."""
    if sys.stderr.isatty():
        yield from _bar(label)
    else:
        report = _lines()
        yield lambda done, total: report(label, done, total, "")


def _bar(label: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines() -> Callable[[str, int, int, str], None]:
    """Return a function that prints a line at most every 15 seconds, and when all is done."""
    began = last = time.monotonic()

    def report(label: str, done: int, total: int, more: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or done == total:
            last = now
            print(f"{label}: {done}/{total} ({now - began:.0f} s){more}", file=sys.stderr, flush=True)

    return report


@contextmanager
def phases() -> Iterator[Callable[[str, int, int, dict[str, float]], None]]:
    """Yield `report(phase, done, total, measures)`; it prints at most every 15 seconds, and at the end of a phase."""
    report = _lines()
    yield lambda phase, done, total, measures: report(
        phase, done, total, " " + ", ".join(f"{name} {value}" for name, value in measures.items())
    )
