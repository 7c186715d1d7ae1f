"""Pilot with an adaptive number of neighbours per client: our variant of Pilot (Xiong et al., AAAI 2025).

ATA mixes in the M nearest clients, and M is the same for all: a client with fewer than M similar others also mixes in
dissimilar ones. Here each client takes those before the widest gap in its distances to others (`pilot.methods.gap`), at
most `num_neighbors`, which is an upper bound here (by default none) instead of a number to tune. It reads no task label
and sends no additional bytes. Everything else is as in Pilot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.base import Mean, Update, weighted_mean
from pilot.methods.gap import UNBOUNDED, mix_before_gap
from pilot.methods.pilot import Mixed, Pilot


@dataclass(frozen=True, kw_only=True)
class PilotGapAta(Pilot):
    """Pilot that takes the clients before the widest gap in distances as neighbours."""

    name: ClassVar[str] = "pilot_gap_ata"

    num_neighbors: int = UNBOUNDED

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.adaptive_text_aggregation:
            raise ValueError("adaptive_text_aggregation: expected true, since this method is a form of ATA")

    def mix_text_adapters(self, updates: Sequence[Update], mean: Mean = weighted_mean) -> Mixed:
        """Mix with ATA's weights over the neighbours before the gap."""
        return mix_before_gap(updates, self.distance, self.num_neighbors, self.self_weight)
