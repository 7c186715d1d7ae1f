"""FedMedian-LoRA: the median over clients of every coordinate of LoRA; connectors are averaged.

client  L_ce + decay / 2 ||B||^2, B of every LoRA product B A
server  lora = median_k lora_k per coordinate;   connector = sum_k (n_k / n) connector_k
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pilot.methods.averaging import mean_of_updates
from pilot.methods.base import ClientInfo, Mean, Method, Phase, ServerState, State, Update, select, weighted_mean
from pilot.methods.robust import coordinate_median

LORA, CONNECTOR = frozenset({"text_adapter"}), frozenset({"connector"})


@dataclass(frozen=True, kw_only=True)
class FedMedianLora(Method):
    """Median of LoRA over clients, which drops what only a minority changes; weight decay on B."""

    name: ClassVar[str] = "fedmedian_lora"  # as the entry point
    single_model: ClassVar[bool] = True

    decay: float = 0.0001

    def __post_init__(self) -> None:
        if not self.decay >= 0:
            raise ValueError(f"decay: expected a number of at least 0, got {self.decay}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round: LoRA and connector are trained and sent."""
        return (Phase(name="train", trainable=LORA | CONNECTOR, shared=LORA | CONNECTOR),)

    def penalty(self, trainable: State, received: State) -> Tensor:
        """Compute decay / 2 ||B||^2."""
        norms = [value.float().square().sum() for value in select(trainable, {"text_adapter:lora_B"}).values()]
        return self.decay / 2 * torch.stack(norms).sum()

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the global model; nothing in round 1, where all clients start equal, from the seed."""
        return dict(server.shared)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Combine LoRA by medians and connectors by a mean; record the number of clients."""
        collected = list(updates)  # an iterator; a median needs all of them at once
        lora = coordinate_median((select(update.state, LORA), update.num_examples) for update in collected)
        connector = mean_of_updates(collected, CONNECTOR, mean)
        return ServerState({**lora, **connector}, record={"num_clients": len(collected)})
