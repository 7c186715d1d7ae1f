"""Sides of a comparison timed in turn in one process, and how far apart their results are."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

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
        """The spread of at least one value; quartiles lie between values, as in `statistics.quantiles` (inclusive)."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper)

    def to_json(self) -> dict[str, float]:
        """All fields."""
        return asdict(self)


def alternate(
    sides: Mapping[str, Work], repeats: int, warm_up: int = 2, least_seconds: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of a call of every side in every repetition.

    All sides run in each repetition, and each takes every place in turn: what slows the machine down for a while, or
    what one side leaves behind for the next, meets all of them.

    Args:
        sides: what to time, by name.
        repeats: repetitions that count, at least 1.
        warm_up: repetitions before them that do not, at least 1.
        least_seconds: every side is called as often in a repetition as takes the fastest one about this long.
    """
    names = list(sides)
    calls = 1
    seconds: dict[str, list[float]] = {}
    for number in range(-warm_up, repeats):
        if number == 0:
            calls = max(1, round(least_seconds / min(seconds[name][-1] for name in names)))
            seconds = {}
        first = number % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            for _ in range(calls):
                sides[name]()
            seconds.setdefault(name, []).append((time.perf_counter() - began) / calls)
    return {name: seconds[name] for name in names}


def ratios(seconds: Mapping[str, Sequence[float]], above: str, below: str) -> Spread:
    """How often `below`'s time goes into `above`'s, repetition by repetition."""
    return Spread.of([a / b for a, b in zip(seconds[above], seconds[below], strict=True)])


def largest_difference(
    what: str, ours: Mapping[str, Tensor], reference: Mapping[str, Tensor], tolerance: float
) -> float:
    """The largest difference of any tensor, in units of the reference's largest magnitude in that tensor.

    Args:
        what: named in the error.
        ours: by name.
        reference: the same names and shapes.
        tolerance: the largest difference that counts as agreement.

    Raises:
        UserError: they differ by more, in names, or in shapes.
    """
    if ours.keys() != reference.keys():
        single = sorted(ours.keys() ^ reference.keys())[:3]
        raise UserError(f"{what}: only one side has {single}. One of them is wrong.")
    largest, where = 0.0, ""
    for name, expected in reference.items():
        if ours[name].shape != expected.shape:
            raise UserError(f"{what}: {name} has shapes {tuple(ours[name].shape)} and {tuple(expected.shape)}.")
        scale = float(expected.detach().abs().max())
        apart = float((ours[name].detach().double() - expected.detach().double()).abs().max())
        difference = apart / scale if scale else apart
        if not difference <= largest:  # also of NaN
            largest, where = difference, name
    if not largest <= tolerance:
        raise UserError(
            f"{what}: ours and the reference differ by {largest:.1e} of the largest value in {where}; expected at most "
            f"{tolerance:.0e}. One of them is wrong: times of different results mean nothing."
        )
    return largest
