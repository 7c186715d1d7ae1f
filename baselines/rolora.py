"""RoLoRA. Chen et al., "Robust Federated Finetuning of LLMs via Alternating Optimization of LoRA", 2025,
arXiv 2502.01755.

Odd rounds train, send and average B and leave A as it is; even rounds the other way round. With A common to all clients

    sum_k (n_k / n) B_k A = (sum_k (n_k / n) B_k) A:   the average is exact, as it is for A with B common.

B comes first, since A has no gradient while B is zero. A client keeps the factor that it did not train and receives
the other, so that each factor travels every other round; a client that missed the last round receives both.

Deviations: the connector, which the paper's text models lack, is trained and averaged in every round. AdamW is started
anew in every round, like for every method here, so that the frozen factor has neither momentum nor weight decay.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from pilot.methods.averaging import Averaging, mean_of_updates
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Phase,
    PhaseResult,
    ServerState,
    SplitResult,
    State,
    Update,
    select,
    weighted_mean,
)
from pilot.methods.lora_products import A, B

HOLDS_A = "held.lora_A"
"""Per client of the last round: 1 if it holds the global A, 0 if it holds the global B."""


@dataclass(frozen=True, kw_only=True)
class RoLora(Averaging):
    """Averaging of B and A in turn, and of the connector in every round."""

    name: ClassVar[str] = "rolora"
    mean_product: ClassVar[bool] = True

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round on B (odd rounds) or A."""
        trained = frozenset({B if round_number % 2 else A, "connector"})
        return (Phase(name="train_b" if B in trained else "train_a", trainable=trained, shared=trained),)

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return what was trained in the last round, to a client without that round's frozen factor both."""
        if client.client not in server.per_client:
            return dict(server.shared)
        holds_a = bool(server.per_client[client.client][HOLDS_A])
        return select(server.shared, {B if holds_a else A, "connector"})

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send what was trained; keep the other factor."""
        frozen = A if B in phase.shared else B
        return SplitResult(select(result.end, phase.shared), select(result.end, {frozen}))

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average what was trained, and note who holds the other factor."""
        present: list[int] = []

        def noted() -> Iterator[Update]:
            for update in updates:
                present.append(update.client)
                yield update

        shared = {**server.shared, **mean_of_updates(noted(), phase.shared, mean)}
        holds_a = torch.tensor([float(B in phase.shared)])
        return ServerState(shared, {client: {HOLDS_A: holds_a} for client in present})
