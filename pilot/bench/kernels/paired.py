"""Sides of a comparison, timed in turn in one process, and the largest difference of their results."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pilot.errors import UserError

Work = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Compute the spread of at least one value; quartiles as in `statistics.quantiles` (method inclusive)."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper)


def alternate(
    sides: Mapping[str, Work], repeats: int, warm_up: int = 2, min_seconds: float = 0.0
) -> dict[str, list[float]]:
    """Measure the seconds per call of every side in every repetition.

    All sides run in each repetition, and their order rotates, so that a temporary slowdown of the machine and the
    effects of one side on the next are spread over all sides.

    Args:
        sides: functions to time, by name.
        repeats: number of timed repetitions, at least 1.
        warm_up: number of repetitions before these that do not count, at least 1.
        min_seconds: in a repetition, every side is called as many times as the fastest one needs for about this
            long; at least once.
    """
    names = list(sides)
    calls = 1
    seconds: dict[str, list[float]] = {}
    for number in range(-warm_up, repeats):
        if number == 0:
            calls = max(1, round(min_seconds / min(seconds[name][-1] for name in names)))
            seconds = {}
        first = number % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            for _ in range(calls):
                sides[name]()
            seconds.setdefault(name, []).append((time.perf_counter() - began) / calls)
    return {name: seconds[name] for name in names}


def ratios(seconds: Mapping[str, Sequence[float]], above: str, below: str) -> Spread:
    """Compute the spread of the ratio of `above`'s time to `below`'s, repetition by repetition."""
    return Spread.of([a / b for a, b in zip(seconds[above], seconds[below], strict=True)])


def largest_difference(
    what: str, ours: Mapping[str, Tensor], reference: Mapping[str, Tensor], tolerance: float
) -> float:
    """Return the largest difference of any tensor, relative to the reference's largest magnitude in that tensor.

    Args:
        what: description of the case for the error message.
        ours: tensors by name.
        reference: tensors of the same names and shapes.
        tolerance: the largest difference that counts as agreement.

    Raises:
        UserError: the difference is larger, or names or shapes differ.
    """
    if ours.keys() != reference.keys():
        single = sorted(ours.keys() ^ reference.keys())[:3]
        raise UserError(f"{what}: only one side has {single}. One side is wrong.")
    largest = 0.0
    for name, expected in reference.items():
        if ours[name].shape != expected.shape:
            raise UserError(f"{what}: {name} has shapes {tuple(ours[name].shape)} and {tuple(expected.shape)}.")
        scale = float(expected.detach().abs().max())
        apart = float((ours[name].detach().double() - expected.detach().double()).abs().max())
        difference = apart / scale if scale else apart
        if not difference <= tolerance:  # also true for NaN
            raise UserError(
                f"{what}: ours and the reference differ by {difference:.1e} of the largest value in {name}; expected "
                f"at most {tolerance:.0e}. One side is wrong; times of different results are not comparable."
            )
        largest = max(largest, difference)
    return largest
