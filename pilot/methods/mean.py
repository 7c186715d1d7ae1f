"""The weighted mean that all methods use: one state in memory at a time, sums in float64."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pilot.methods.state import State, view_like

Mean = Callable[[Iterable[tuple[State, float]]], State]
"""A mean over (state, weight) pairs: `weighted_mean`, or a robust one that replaces it."""

BLOCK = 32768
"""Numbers averaged at a time; 256 KiB in float64."""
WIDE_BLOCK = 16384
"""Numbers averaged at a time where all states are read together; 128 KiB of each."""
JOINED = 2**20
"""Maximum number of elements for which several tensors are concatenated."""


def weighted_mean(states: Iterable[tuple[State, float]]) -> State:
    """Compute sum_k w_k theta_k / sum_k w_k with one state in memory at a time.

    Sums are in float64; the result has the states' dtype and the first state's order of names.

    Raises:
        ValueError: there is no state; names, shapes or dtypes differ; a dtype is not floating-point; a weight
            is not a positive finite number.
    """
    sums: State = {}
    dtypes: dict[str, torch.dtype] = {}
    flat_D = torch.empty(0)
    total, count = 0.0, 0
    for state, weight in states:
        if count == 0:
            dtypes = {name: value.dtype for name, value in state.items()}
            flat_D = torch.zeros(sum(value.numel() for value in state.values()), dtype=torch.float64)
            sums = view_like(flat_D, state)
        check_state(state, weight, sums, dtypes, count)
        add_scaled(flat_D, (state[name] for name in sums), weight)
        total, count = total + weight, count + 1
    if count == 0:
        raise ValueError("the mean of no states is undefined")
    flat_D.div_(total)
    return {name: value.to(dtypes[name]) for name, value in sums.items()}


@torch.no_grad()
def weighted_means(states: Sequence[State], parts: Sequence[Sequence[tuple[int, float]]]) -> list[State]:
    """Compute several means of the same states, each bit-identical to `weighted_mean` of its part.

    Every number is read and widened once, however many means use it.

    Args:
        states: all of one dtype.
        parts: for each mean, the (position in `states`, weight) pairs in the order in which they are added.

    Raises:
        ValueError: see `weighted_mean`.
    """
    like, dtypes = states[0], {name: value.dtype for name, value in states[0].items()}
    for part in parts:
        if not part:
            raise ValueError("the mean of no states is undefined")
        for k, weight in part:
            check_state(states[k], weight, like, dtypes, k)
    size, dtype = sum(value.numel() for value in like.values()), next(iter(dtypes.values()))
    results = [torch.empty(size, dtype=dtype) for _ in parts]
    wide_KB = torch.empty(len(states), WIDE_BLOCK, dtype=torch.float64)
    sums_B, scaled_B = torch.empty(2, WIDE_BLOCK, dtype=torch.float64)
    totals = [sum(weight for _, weight in part) for part in parts]
    start = 0
    for rows_K in zip(*[_rows([state[name] for name in like]) for state in states], strict=True):
        for blocks_K in zip(*(row.split(WIDE_BLOCK) for row in rows_K), strict=True):
            here = slice(start, start := start + blocks_K[0].numel())
            wide = [wide_B[: block.numel()].copy_(block) for wide_B, block in zip(wide_KB, blocks_K, strict=True)]
            sums, scaled = sums_B[: wide[0].numel()], scaled_B[: wide[0].numel()]
            for result, part, total in zip(results, parts, totals, strict=True):
                sums.zero_()
                for k, weight in part:
                    sums.add_(torch.mul(wide[k], weight, out=scaled))
                result[here] = sums.div_(total)
    return [view_like(result, like) for result in results]


@torch.no_grad()
def add_scaled(sums_D: Tensor, values: Iterable[Tensor], weight: float) -> None:
    """Add weight * values to `sums_D`, tensor by tensor, in float64, in blocks that fit into a processor's cache."""
    buffer_B, start = torch.empty(BLOCK, dtype=torch.float64), 0
    for row in _rows(values):
        for block, sums in zip(row.split(BLOCK), sums_D[start : start + row.numel()].split(BLOCK), strict=True):
            sums.add_(buffer_B[: block.numel()].copy_(block).mul_(weight))
        start += row.numel()


def _rows(values: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield all numbers in order, small tensors concatenated: many small operations cost more than their arithmetic."""
    held: list[Tensor] = []
    size = 0
    for value in values:
        if held and size + value.numel() > JOINED:
            yield torch.cat(held)
            held, size = [], 0
        held.append(value.reshape(-1))
        size += value.numel()
    if held:
        yield held[0] if len(held) == 1 else torch.cat(held)


def check_state(state: State, weight: float, like: State, dtypes: Mapping[str, torch.dtype], index: int) -> None:
    """Check the `index`-th state of a mean: a valid weight, and the first state's names, shapes and dtypes.

    Raises:
        ValueError: see `weighted_mean`.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"state {index}: expected a positive finite weight, got {weight}")
    if state.keys() != like.keys():
        raise ValueError(f"state {index}: names differ from the first state's: {sorted(state.keys() ^ like.keys())}")
    for name, value in state.items():
        if value.shape != like[name].shape or value.dtype != dtypes[name] or not value.is_floating_point():
            raise ValueError(
                f"state {index}, {name}: expected floating-point {dtypes[name]} {tuple(like[name].shape)}, "
                f"got {value.dtype} {tuple(value.shape)}"
            )
