"""Parts of a check, one after the other until the time is up: a part that fails or is cut off keeps what it had."""

import gc
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from pilot.errors import UserError

Values = dict[str, Any]
"""What a part has measured so far."""
Part = Callable[[Values], None]


class OutOfTimeError(BaseException):
    """The time of a check is up; no handler of `Exception` between the signal and the part may catch it."""


class UnavailableError(Exception):
    """A part cannot run here, for the reason given."""


def run_parts(parts: Mapping[str, Part], seconds: float, finished: Callable[[str, Values], None]) -> dict[str, Values]:
    """Run parts in order; return by name what each measured, its `status`, its seconds and, unless done, the reason.

    Args:
        parts: functions that add what they measure to the dictionary that they are given.
        seconds: wall time for all of them; the part in progress is interrupted when it is over.
        finished: called after each part.
    """
    end, results = time.monotonic() + seconds, dict[str, Values]()
    for name, part in parts.items():
        values: Values = {}
        left, began = end - time.monotonic(), time.monotonic()
        try:
            if left <= 0:
                raise UnavailableError(f"the {seconds:.0f} s were over")
            with _limit(left):
                part(values)
            outcome = {"status": "done"}
        except OutOfTimeError:
            outcome = {"status": "out of time", "reason": f"interrupted when the {seconds:.0f} s were over"}
        except UnavailableError as error:
            outcome = {"status": "not reached", "reason": str(error)}
        except (torch.OutOfMemoryError, MemoryError) as error:
            outcome = {"status": "failed", "reason": f"out of memory: {_first_line(error)}"}
        except UserError as error:
            outcome = {"status": "failed", "reason": str(error)}
        except Exception as error:
            outcome = {"status": "failed", "reason": f"{type(error).__name__}: {_first_line(error)}"}
        results[name] = outcome | {"seconds": round(time.monotonic() - began, 2)} | values
        finished(name, results[name])
        if torch.cuda.is_available():  # what a failed part held
            gc.collect()
            torch.cuda.empty_cache()
    return results


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` in the main thread after `seconds`, between two operations of Python."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")
