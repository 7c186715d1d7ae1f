"""FedMosaic's aggregation, RELA. Seo et al., "Co-LoRA: Collaborative Model Personalization on Heterogeneous
Multi-Modal Clients", ICLR 2026, arXiv 2506.11024 (earlier: "Not All Clients Are Equal").

Server, for client i with update g_i = theta_i - the model that i received, over LoRA and connector:

    theta_i' = a theta_i + (1 - a) sum_(j != i) s_ij theta_j,   s_i = softmax_(j != i)(cos(g_i, g_j) / T)

Deviations: the paper compares gradients of a small frozen model on each client's data, smoothed over rounds and with
noise; here the update itself is the signature, which costs nothing and is known to the server anyway. The paper's
clients hold the sum as a second, frozen adapter besides their own, with a learned gate; here one adapter is mixed with
the fixed share a, so that every method trains the same model. The connector is mixed like LoRA; in the authors' code it
stays on its client. The paper's bridge between architectures (Co-LoRA) is not needed, since all clients have the same
architecture. AdamW, like every method here. A client without an update keeps its previous model; a single participant
keeps its own update.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import Averaging
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Phase,
    ServerState,
    State,
    Update,
    prefixed,
    select,
    sort_by_client,
    unprefixed,
    weighted_mean,
)
from pilot.methods.similarity import cosine_similarities, flat_update

INITIAL = "initial"


@dataclass(frozen=True, kw_only=True)
class FedMosaic(Averaging):
    """A model per client, mixed from the models of clients with similar updates.

    Attributes:
        temperature: T, above 0.
        self_weight: a, in 0..1.
    """

    name: ClassVar[str] = "fedmosaic"
    single_model: ClassVar[bool] = False

    temperature: float = 0.5
    self_weight: float = 0.5

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {self.temperature}")
        if not 0 <= self.self_weight <= 1:
            raise ValueError(f"self_weight: expected a number in 0..1, got {self.self_weight}")

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Store the initial model, from which first updates are measured."""
        return ServerState(prefixed(initial, INITIAL))

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the client's own mix; nothing before its first update."""
        return dict(server.per_client.get(client.client, {}))

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Apply the equations of the module; a robust `mean` of the others' models may ignore s."""
        updates = sort_by_client(updates)
        states = [select(update.state, phase.shared) for update in updates]
        initial = unprefixed(server.shared, INITIAL)
        received = [server.per_client.get(update.client) or initial for update in updates]
        cosines = cosine_similarities([flat_update(*pair) for pair in zip(states, received, strict=True)])
        per_client, weights = dict(server.per_client), []
        for own, (update, state) in enumerate(zip(updates, states, strict=True)):
            shares = relevance(cosines[own], own, self.temperature)
            weights.append(shares)
            others = [(states[j], share) for j, share in enumerate(shares) if j != own]
            per_client[update.client] = self._mix(state, mean(others) if others else state)
        record = {"clients": [update.client for update in updates], "similarities": cosines, "weights": weights}
        return ServerState(server.shared, per_client, record)

    def _mix(self, own: State, others: State) -> State:
        a = self.self_weight
        return {name: a * value + (1 - a) * others[name] for name, value in own.items()}


def relevance(cosines: Sequence[float], own: int, temperature: float) -> list[float]:
    """Compute s_i: softmax of cosine / temperature over all positions except `own`, which gets 0."""
    top = max((cosine for j, cosine in enumerate(cosines) if j != own), default=0.0)
    scores = [0.0 if j == own else math.exp((cosine - top) / temperature) for j, cosine in enumerate(cosines)]
    total = sum(scores)
    return [score / total if total else 0.0 for score in scores]
