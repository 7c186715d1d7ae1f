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
        yield _lines(label)


def _bar(label: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(label: str) -> Advance:
    began = last = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or done == total:
            last = now
            print(f"{label}: {done}/{total} ({now - began:.0f} s)", file=sys.stderr, flush=True)

    return advance


@contextmanager
def phases() -> Iterator[Callable[[str, int, int, dict[str, float]], None]]:
    """Yield `report(phase, done, total, measures)`; it prints at most every 15 seconds, and at the end of a phase."""
    began = last = time.monotonic()

    def report(phase: str, done: int, total: int, measures: dict[str, float]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or done == total:
            last = now
            values = ", ".join(f"{name} {value}" for name, value in measures.items())
            print(f"{phase}: {done}/{total} ({now - began:.0f} s) {values}", file=sys.stderr, flush=True)

    yield report
