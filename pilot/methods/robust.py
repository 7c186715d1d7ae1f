"""Robust aggregation when some clients may send anything: median, trimmed mean, multi-Krum, norm clipping.

Per coordinate, with the values of the K states sorted, x_(1) <= ... <= x_(K):

    median        x_((K+1)/2), or (x_(K/2) + x_(K/2+1)) / 2 where K is even
    trimmed mean  mean of x_(g+1) ... x_(K-g), g = floor(trim K)

(Yin et al., ICML 2018.) As long as fewer than K/2 states (median) or at most g states (trimmed mean) are hostile, the
result is within the range of the honest values, whatever the others are. Krum (Blanchard et al., NeurIPS 2017) selects
whole states instead.

Median and trimmed mean accept the weights of `pilot.methods.base.weighted_mean`, so that they can replace it, but
ignore them: clients report their own weights, and one hostile client with a large weight would otherwise count as a
majority.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from pilot.methods.base import State, check_state

Floats = NDArray[np.float64]
BLOCK = 1 << 16
"""Coordinates processed at once: beyond the states themselves, memory is K x BLOCK numbers for tensors of any size."""


def coordinate_median(states: Iterable[tuple[State, float]]) -> State:
    """Compute the median of every coordinate; weights are checked but ignored (see the module).

    NaN sorts above every number. The result is bit-identical for any order of the states; it has the states' dtype and
    the first state's order of names.

    Raises:
        ValueError: as `weighted_mean`.
    """
    return _by_coordinate(_checked(states), _median)


def trimmed_mean(states: Iterable[tuple[State, float]], trim: float) -> State:
    """Compute the mean of every coordinate without its floor(trim K) lowest and as many highest values.

    Everything else is as in `coordinate_median`.

    Args:
        states: each with its weight, which is ignored.
        trim: share cut from each end, 0 <= trim < 0.5, taken as the decimal number that it prints as (0.29 of 100 is
            29).

    Raises:
        ValueError: as `weighted_mean`, or `trim` is out of range.
    """
    if not 0 <= trim < 0.5:
        raise ValueError(f"trim: expected a share of at least 0 and below 0.5 from each end, got {trim}")
    collected = _checked(states)
    cut = math.floor(Fraction(str(trim)) * len(collected))
    return _by_coordinate(collected, lambda values_KB: _mean(values_KB[cut : len(collected) - cut]))


def multi_krum(states: Sequence[State], num_byzantine: int, num_selected: int) -> tuple[int, ...]:
    """Return the positions of the states to average, ascending (Blanchard et al., NeurIPS 2017).

    The score of a state is the sum of squared L2 distances to its K - f - 2 nearest others; the m lowest scores are
    selected, ties by position. A NaN distance counts as infinite. The time is proportional to K^2 x the states' size.

    Args:
        states: K of them.
        num_byzantine: f, the number of states that may be hostile.
        num_selected: m; 1 is Krum. Above K - f, a hostile state would have to be selected.

    Raises:
        ValueError: K < 2 f + 3, m is not in 1..K - f, or names, shapes or dtypes differ.
    """
    checked = _checked((state, 1.0) for state in states)
    count = len(checked)
    if num_byzantine < 0:
        raise ValueError(f"num_byzantine: expected at least 0, got {num_byzantine}")
    if count < 2 * num_byzantine + 3:
        raise ValueError(
            f"num_byzantine: Krum needs at least 2 f + 3 updates: {2 * num_byzantine + 3} for f = {num_byzantine}, "
            f"got {count}"
        )
    if not 1 <= num_selected <= count - num_byzantine:
        raise ValueError(f"num_selected: expected 1..{count - num_byzantine} (K - f), got {num_selected}")
    distances = _squared_distances(checked)
    scores = []
    for k, row in enumerate(distances):
        nearest = sorted(row[:k] + row[k + 1 :])[: count - num_byzantine - 2]
        scores.append(sum(nearest))  # in ascending order, so that the order of the states changes no score
    return tuple(sorted(sorted(range(count), key=lambda k: (scores[k], k))[:num_selected]))


def clip_update(state: State, reference: State, max_norm: float) -> tuple[State, float]:
    """Scale the difference of `state` to `reference` down to a global L2 norm of at most `max_norm`.

    The bound holds for the result as stored: where rounding to the dtype would enlarge a coordinate's difference, the
    next value towards the reference is used.

    Args:
        state: the state that a client sends.
        reference: the state that it started from; may contain more names.
        max_norm: the bound, positive and finite.

    Returns:
        The new state, which is `state` itself (no copy) if it is within the bound, and the norm before clipping.

    Raises:
        ValueError: as `clip_difference`.
    """
    scaled, norm = clip_difference(state, reference, max_norm)
    if norm <= max_norm:
        return state, norm
    clipped = {}
    for name, difference in scaled.items():
        start = reference[name].detach()
        rounded = (start.double() + difference).to(start.dtype)
        longer = (rounded.double() - start.double()).abs() > difference.abs()
        clipped[name] = torch.where(longer, torch.nextafter(rounded, start), rounded)
    return clipped, norm


def clip_difference(state: State, reference: State, max_norm: float) -> tuple[State, float]:
    """Return `state` - `reference` in float64, scaled to a global L2 norm of at most `max_norm`, and the norm before.

    Raises:
        ValueError: names, shapes or dtypes differ, the norm is not finite, or `max_norm` is out of range.
    """
    if not (math.isfinite(max_norm) and max_norm > 0):
        raise ValueError(f"max_norm: expected a positive finite number, got {max_norm}")
    origin, sent = _checked([({name: reference[name] for name in state if name in reference}, 1.0), (state, 1.0)])
    differences = {name: value.double() - origin[name].double() for name, value in sent.items()}
    norm = math.sqrt(sum(float(differences[name].square().sum()) for name in sorted(differences)))
    if not math.isfinite(norm):
        raise ValueError(f"the norm of the update is {norm}, expected a finite number")
    if norm > max_norm:
        # The last factor exceeds the rounding errors of the products and of the norm.
        differences = {name: value * (max_norm / norm * (1 - 1e-12)) for name, value in differences.items()}
    return differences, norm


def _checked(states: Iterable[tuple[State, float]]) -> list[State]:
    """Collect the states after the checks of `weighted_mean`."""
    result: list[State] = []
    for index, (state, weight) in enumerate(states):
        first = result[0] if result else state
        check_state(state, weight, first, {name: value.dtype for name, value in first.items()}, index)
        result.append({name: value.detach() for name, value in state.items()})
    if not result:
        raise ValueError("no states to combine")
    return result


def _by_coordinate(states: Sequence[State], rule: Callable[[Floats], Floats]) -> State:
    """Apply `rule`, which maps (K, B) values, ascending along K, to (B,), to blocks of all coordinates."""
    result = {}
    for name, first in states[0].items():
        flat = [state[name].reshape(-1) for state in states]
        combined = torch.empty(first.numel(), dtype=first.dtype)
        for start in range(0, first.numel(), BLOCK):
            part = slice(start, start + BLOCK)
            values_KB = torch.stack([value[part].double() for value in flat]).numpy()
            values_KB.sort(axis=0)
            # + 0.0 turns -0.0 into 0.0: the two compare equal, so their order would depend on that of the states.
            combined[part] = torch.from_numpy(rule(values_KB) + 0.0).to(first.dtype)
        result[name] = combined.reshape(first.shape)
    return result


def _median(values_KB: Floats) -> Floats:
    count = len(values_KB)
    return _mean(values_KB[(count - 1) // 2 : count // 2 + 1])


def _mean(values_KB: Floats) -> Floats:
    """Average sorted values; clip the mean to their range, which rounding of the sum may exceed."""
    mean: Floats = np.clip(values_KB.mean(axis=0), values_KB[0], values_KB[-1])
    return mean


def _squared_distances(states: Sequence[State]) -> list[list[float]]:
    """Compute (K, K) squared distances from differences: exact zeros between equal states, and no cancellation."""
    result = [[0.0] * len(states) for _ in states]
    for k, state in enumerate(states):
        for j in range(k):
            total = sum(float((state[n].double() - states[j][n].double()).square().sum()) for n in sorted(state))
            result[k][j] = result[j][k] = math.inf if math.isnan(total) else total
    return result
