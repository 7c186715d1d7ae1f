"""Base class of methods with a different LoRA rank per client.

The model keeps the profile's rank r. A client of rank r_k holds, trains and sends the first r_k rows of A and columns
of B; the others are zero in both factors, so that their gradients are zero, too. Every payload contains r_k and r
(`rank.own`, `rank.full`: eight bytes). Before the first aggregation it also contains the client's initial rows of A,
since a client cannot tell which rows of its seed's A to clear before it knows the ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pilot.methods.averaging import PLAIN_GROUPS
from pilot.methods.base import (
    ClientInfo,
    Method,
    Phase,
    PhaseResult,
    ServerState,
    SplitResult,
    State,
    prefixed,
    select,
    unprefixed,
    without,
)
from pilot.methods.lora_products import A, lora_rank, pad_rank, truncate_rank

START = "start"
"""Group of the server's state: the initial A of all clients."""
OWN, FULL = "rank.own", "rank.full"


@dataclass(frozen=True, kw_only=True)
class HeterogeneousRanks(Method):
    """One phase per round on LoRA and a plain connector, at each client's rank.

    Attributes:
        ranks: r_k / r, cycled over client ids; at least one row is kept. (1.0,) gives all clients the full rank.
    """

    single_model: ClassVar[bool] = False

    ranks: tuple[float, ...] = (0.25, 0.5, 1.0)

    def __post_init__(self) -> None:
        if not self.ranks or not all(0 < fraction <= 1 for fraction in self.ranks):
            raise ValueError(f"ranks: expected numbers above 0 and at most 1, got {self.ranks}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round."""
        return (Phase(name="train", trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS, auxiliary=frozenset({"rank"})),)

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Store every client's rank, and the initial A."""
        full = lora_rank(initial)
        per_client = {info.client: {OWN: self.first_rank(info.client, full)} for info in clients}
        return ServerState(prefixed(select(initial, {A}), START), per_client)

    def first_rank(self, client: int, full: int) -> Tensor:
        """Return the rank (1,) of a client before any round, also of one that takes no part in training."""
        return torch.tensor([float(max(1, round(self.ranks[client % len(self.ranks)] * full)))])

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the global model at the client's rank; before the first aggregation only its rows of the initial A."""
        if not server.shared:
            return {}
        start = unprefixed(server.shared, START)
        full = lora_rank(start)
        kept = server.per_client.get(client.client)
        own = self.first_rank(client.client, full) if kept is None else kept[OWN]
        sent = truncate_rank(without(server.shared, {START}) or start, int(own))
        return {**sent, OWN: own, FULL: torch.tensor([float(full)])}

    def initial_state(self, phase: Phase, client: ClientInfo, stored: State, payload: State) -> State:
        """Pad the payload with zeros up to the model's rank."""
        return pad_rank(without(payload, phase.auxiliary), int(payload[FULL])) if payload else {}

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send the connector, and LoRA at the client's rank, or at full rank if the payload is empty."""
        shared = select(result.end, phase.shared)
        return SplitResult(truncate_rank(shared, int(result.payload[OWN])) if result.payload else shared, {})
