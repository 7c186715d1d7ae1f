"""Pilot with an adaptive number of neighbours per client: our variant of Pilot (Xiong et al., AAAI 2025).

ATA mixes in the M nearest clients, and M is the same for all: a client with fewer than M similar others also mixes in
dissimilar ones. Here each client takes those before the widest gap in its sorted distances d_1 <= d_2 <= ... to others:

    M_k = argmax_(1 <= m < K - 1) d_(m + 1) / d_m,   the smallest m on ties;   one other: M_k = 1

at most `num_neighbors`, which is an upper bound here (by default none) instead of a number to tune. If some others are
at distance 0, those are the neighbours. It reads no task label and sends no additional bytes. Everything else is as in
Pilot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pilot.methods.base import State, Update, select
from pilot.methods.pilot import Pilot, mixing_record
from pilot.methods.text_aggregation import mix, neighbourhoods_from_nearest, pairwise_distances

UNBOUNDED = 1_000_000


@dataclass(frozen=True, kw_only=True)
class PilotGapAta(Pilot):
    """Pilot that takes the clients before the widest gap in distances as neighbours."""

    name: ClassVar[str] = "pilot_gap_ata"

    num_neighbors: int = UNBOUNDED

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.adaptive_text_aggregation:
            raise ValueError("adaptive_text_aggregation: expected true, since this method is a form of ATA")

    def mix_text_adapters(self, updates: Sequence[Update]) -> tuple[list[State], dict[str, Any]]:
        """Mix with ATA's weights over the neighbours before the gap."""
        texts = [select(update.state, {"text_adapter"}) for update in updates]
        distances = pairwise_distances(texts, self.distance)
        chosen = []
        for k, row in enumerate(distances):
            others = sorted((distance, j) for j, distance in enumerate(row) if j != k)
            count = count_before_gap([distance for distance, _ in others])
            chosen.append(others[: min(count, self.num_neighbors)])
        indices = [[j for _, j in of_client] for of_client in chosen]
        near = [[distance for distance, _ in of_client] for of_client in chosen]
        neighbourhoods = neighbourhoods_from_nearest(
            indices, near, [update.num_examples for update in updates], self.self_weight
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
