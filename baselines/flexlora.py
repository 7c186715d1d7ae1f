"""FlexLoRA. Bai et al., "Federated Fine-tuning of Large Language Models under Heterogeneous Tasks and Client
Resources", NeurIPS 2024, arXiv 2402.11505.

Client k trains LoRA of rank r_k. Server, for every layer, with p_k = n_k / n:

    W = sum_k p_k B_k A_k = U S V^T,   client k receives   B = U_k sqrt(S_k),   A = sqrt(S_k) V_k^T

with the first r_k singular values and vectors. `ranks` are fractions of the profile's rank, by client id: by default
a quarter, a half and all of it, since the method is made for unequal ranks; (1.0,) compares it with other methods at
equal ranks.

Deviations: singular values are split evenly between the factors; W is not built, and signs are fixed (see
`low_rank_factors`). Where W has a lower rank than the factors, the remaining rows restart as in LoRA, A at its initial
values and B at zero: with zeros in both they could never be learned. s = alpha / r is the same for every rank. The
connector is averaged by numbers of examples. With a robust mean, W is the robust mean of the B_k A_k.
AdamW instead of SGD, like every method here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import mean_of_updates, mean_product_factors
from pilot.methods.base import Mean, Phase, ServerState, Update, sort_by_client, unprefixed, weighted_mean
from pilot.methods.lora_products import complete_pair, lora_rank, low_rank_factors
from pilot.methods.ranks import OWN, START, HeterogeneousRanks


@dataclass(frozen=True, kw_only=True)
class FlexLora(HeterogeneousRanks):
    """Averaging of products; each client receives the first rows and columns of the server's full-rank factors."""

    name: ClassVar[str] = "flexlora"
    mean_product: ClassVar[bool] = True

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Compute W and its factors in every layer, and average the connectors."""
        updates = sort_by_client(updates)
        start, shared = unprefixed(server.shared, START), dict(server.shared)
        shared |= mean_of_updates(updates, {"connector"}, mean)
        for layer, left_OR, right_RI in mean_product_factors(updates, mean):
            factors = low_rank_factors(left_OR, right_RI, lora_rank(start))
            shared |= complete_pair(layer, *factors, start[f"text_adapter.{layer}.lora_A"])
        ranks = {str(client): int(state[OWN]) for client, state in sorted(server.per_client.items())}
        return ServerState(shared, server.per_client, {"ranks": ranks})
