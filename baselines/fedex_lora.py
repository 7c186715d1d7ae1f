"""FedEx-LoRA. Singhal et al., "FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of Foundation
Models", 2024, arXiv 2410.09432.

Both factors are averaged as in FedAvg, and the residual is added to the frozen weight W + s D, so that the global model
is the exact mean of the clients' models. With p_k = n_k / n:

    A = sum_k p_k A_k,   B = sum_k p_k B_k,   D <- D + sum_k p_k B_k A_k - B A.

Deviations: a client receives D itself, the sum of all residuals, in float32 and at full rank, although factors of rank
(K + 1) r would be enough for a single round's residual: a client that missed rounds needs no history, and every byte of
D is counted. The connector, which the paper's models lack, is averaged. Weights are numbers of examples. AdamW instead
of SGD, like every method here. A robust mean replaces the weighted one for factors and for products.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import Averaging
from pilot.methods.base import (
    ClientInfo,
    Handover,
    Mean,
    Phase,
    ServerState,
    State,
    Update,
    Work,
    by_client,
    select,
    weighted_mean,
)
from pilot.methods.lora_products import products


@dataclass(frozen=True, kw_only=True)
class FedExLora(Averaging):
    """Averaging whose server keeps A, B, the connector and D."""

    name: ClassVar[str] = "fedex_lora"
    offsets: ClassVar[bool] = True

    def arrive(self, phase: Phase, client: ClientInfo, stored: State, payload: State) -> State:
        """Load the global model with its D."""
        return dict(payload)

    def hand_over(self, phase: Phase, client: ClientInfo, work: Work) -> Handover:
        """Send LoRA and the connector; keep nothing, since the server sends D."""
        return Handover(select(work.end, phase.shared), {})

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average factors and connectors; add to D the mean product minus the product of the means, as sent."""
        parts = (({**u.state, **products(u.state)}, u.num_examples) for u in by_client(updates))
        shared = mean(parts)
        for name, product in products(shared).items():
            before = server.shared[name].double() if name in server.shared else 0.0
            shared[name] = (before + shared[name] - product).float()
        return ServerState(shared)
