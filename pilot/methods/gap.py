"""Mixing of text adapters with an adaptive number of neighbours: ours, in place of Pilot's M nearest.

Each client takes those before the widest gap in its sorted distances d_1 <= d_2 <= ... to others:

    M_k = argmax_(1 <= m < K - 1) d_(m + 1) / d_m,   the smallest m on ties;   one other: M_k = 1

If some others are at distance 0, those are the neighbours. Weights are those of adaptive text aggregation.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pilot.methods.base import State, Update, select
from pilot.methods.pilot import mixing_record
from pilot.methods.text_aggregation import Distance, mix, neighbourhoods_from_nearest, pairwise_distances

UNBOUNDED = 1_000_000


def mix_before_gap(
    updates: Sequence[Update],
    distance: Distance = "parameters",
    most: int = UNBOUNDED,
    self_weight: float | Literal["samples"] = "samples",
) -> tuple[list[State], dict[str, Any]]:
    """Mix text adapters over the neighbours before the gap, at most `most`; return them, and a record of who mixed."""
    texts = [select(update.state, {"text_adapter"}) for update in updates]
    distances = pairwise_distances(texts, distance)
    chosen = []
    for k, row in enumerate(distances):
        others = sorted((value, j) for j, value in enumerate(row) if j != k)
        count = count_before_gap([value for value, _ in others])
        chosen.append(others[: min(count, most)])
    indices = [[j for _, j in of_client] for of_client in chosen]
    near = [[value for value, _ in of_client] for of_client in chosen]
    neighbourhoods = neighbourhoods_from_nearest(
        indices, near, [update.num_examples for update in updates], self_weight
    )
    return mix(texts, neighbourhoods), mixing_record(updates, distances, neighbourhoods)


def count_before_gap(distances: Sequence[float]) -> int:
    """Count the sorted distances before the widest relative gap; see the module."""
    if len(distances) < 2:
        return len(distances)
    if distances[0] == 0:
        return sum(distance == 0 for distance in distances)
    ratios = [after / before for before, after in zip(distances, distances[1:], strict=False)]
    return ratios.index(max(ratios)) + 1
