"""One case of a bench with two sides: agreement, peak memory and time."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pilot.bench.kernels.paired import Spread, alternate, largest_difference, ratios
from pilot.bench.kernels.report import Row

MEMORY_EVENT = "[memory]"
Sides = Mapping[str, Callable[[], dict[str, Tensor]]]


def compare_sides(
    what: str, case: Mapping[str, Any], sides: Sides, repeats: int, *, tolerance: float, min_seconds: float
) -> Row:
    """Measure seconds, their ratio and peak MiB of `ours` and of the reference, which is the other side.

    Args:
        what: description of the case for the error message.
        case: columns of the row.
        sides: `ours` and one other; they return the tensors that must agree.
        repeats: number of timed repetitions, without the warm-up.
        tolerance: as in `largest_difference`.
        min_seconds: as in `alternate`.

    Raises:
        UserError: the sides disagree.
    """
    (other,) = (name for name in sides if name != "ours")
    difference = largest_difference(what, sides["ours"](), sides[other](), tolerance)
    memory = {f"{name} MiB": peak_bytes(side) / 2**20 for name, side in sides.items()}
    seconds = alternate(sides, repeats, warm_up=1, min_seconds=min_seconds)
    spreads = {name: Spread.of(values) for name, values in seconds.items()}
    return Row(case, spreads, {f"{other} / ours": ratios(seconds, other, "ours")}, difference, repeats, memory)


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the largest number of bytes that `work` held at once in memory from PyTorch's host allocator.

    Memory allocated before the call does not count; the result of `work` and the memory of its graph do.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        result = work()
    del result
    assert run.profiler is not None and run.profiler.kineto_results is not None, "it has run"
    held = peak = 0
    events = [event for event in run.profiler.kineto_results.events() if event.name() == MEMORY_EVENT]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative for memory that is freed
        peak = max(peak, held)
    return peak
