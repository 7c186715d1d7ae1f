"""Pilot with exact ATA: our variant of Pilot (Xiong et al., AAAI 2025, arXiv 2501.13985), not the paper's.

ATA mixes the two factors of neighbours' LoRAs separately, and the product of mixed factors is not the mixed product.
Here each client receives the best approximation of the mixed product that its rank allows:

    sum_j w_j B_j A_j = U S V^T  (j: the client itself and its neighbours);   B = U_r sqrt(S_r),   A = sqrt(S_r) V_r^T

with ATA's weights w and its neighbours by distance between products (`distance`), since factors of equal products may
differ by any invertible matrix. It costs the server a singular value decomposition per client and layer, but no
additional bytes. Everything else is as in Pilot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pilot.methods.base import Mean, State, Update, select, weighted_mean
from pilot.methods.lora_products import complete_pair, layers_of, low_rank_factors, stack_factors
from pilot.methods.pilot import Mixed, Pilot, mixing_record
from pilot.methods.text_aggregation import Distance, neighbourhoods_from_distances, pairwise_distances


@dataclass(frozen=True, kw_only=True)
class PilotExactAta(Pilot):
    """Pilot whose server mixes products B A instead of their factors."""

    name: ClassVar[str] = "pilot_exact_ata"

    distance: Distance = "product"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.adaptive_text_aggregation:
            raise ValueError("adaptive_text_aggregation: expected true, since this method is a form of ATA")

    def mix_text_adapters(self, updates: Sequence[Update], mean: Mean = weighted_mean) -> Mixed:
        """Mix products with ATA's neighbours and weights."""
        texts = [select(update.state, {"text_adapter"}) for update in updates]
        distances = pairwise_distances(texts, self.distance)
        counts = [update.num_examples for update in updates]
        neighbourhoods = neighbourhoods_from_distances(distances, counts, self.num_neighbors, self.self_weight)
        mixed = []
        for k, hood in enumerate(neighbourhoods):
            rest = 1.0 - hood.self_weight
            parts = [(texts[k], hood.self_weight)]
            parts += [(texts[j], rest * weight) for j, weight in zip(hood.neighbours, hood.weights, strict=True)]
            mixed.append(mixed_product([part for part in parts if part[1] > 0]))
        return mixed, mixing_record(updates, distances, neighbourhoods)


def mixed_product(parts: Sequence[tuple[Mapping[str, Tensor], float]]) -> State:
    """Return the LoRA of the first state's rank that is nearest to sum_j w_j B_j A_j, layer by layer.

    Directions that the sum does not use get rows of the first state's A and zeros in B, so that they can be learned.
    """
    first = dict(parts[0][0])
    result: State = {}
    for layer in layers_of(first):
        start_RI = first[f"text_adapter.{layer}.lora_A"]
        result |= complete_pair(layer, *low_rank_factors(*stack_factors(parts, layer), len(start_RI)), start_RI)
    return {name: result[name] for name in first}
