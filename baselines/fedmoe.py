"""FedMoE (after Mei et al., "FedMoE: Personalized Federated Learning via Heterogeneous Mixture of Experts",
2024, arXiv 2408.11304, Algorithm 1).

Round 1, search: every client trains all E experts, then measures activation probabilities p_ij and its loss on its
validation part. The server gives client i the smallest set S_i with sum_{j in S_i} p_ij >= theta. Later rounds,
train: client i holds, trains and sends the experts and router rows of S_i only. Server, for expert and router row j:

    without holders: unchanged;   else: psi_j = sum_i n_i psi_ij / sum_i n_i over its holders {i : j in S_i}.

LoRA: sum_k (n_k / n) theta_k. L = L_ce + load_balance * L_b.

Expert recommendation: a client whose validation loss was not below the previous one tries the set recommended by its
K most similar clients (`recommend_experts`) in its next round, and keeps it if its loss falls, else reverts.

Deviations: the paper's backbone is a Switch Transformer, here the experts are E connector copies under a linear
router, top-k, weights renormalised; the search takes one round, a client's first; the set is found by sorting, with
the result of the paper's binary search without its memory budget. Better means a lower loss of the locally trained
model. p remains as measured in the search, since a client without an expert cannot measure it; n is rounded, halves
up. A set that no round has tried is not evaluated: the final model has the last confirmed set. theta = 0.8 and K = 3
are our choice. Several papers are called FedMoE; which one Pilot's paper ran is unknown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from pilot.connector.base import Connector
from pilot.connector.mixture import ExpertMixture
from pilot.connector.projector import Projector
from pilot.methods.base import (
    VALIDATION_LOSS,
    ClientInfo,
    Mean,
    Method,
    Phase,
    ServerState,
    State,
    Update,
    sort_by_client,
    weighted_mean,
)
from pilot.methods.experts import choose_experts, expert_of, indices_of, mask_of, mean_over_holders, recommend_experts

TRAINED = frozenset({"text_adapter", "experts", "router"})
ACTIVATION = "activation_probabilities"
HELD, PROVEN = "held_experts", "proven_experts"  # masks per client; they differ while a set is being tried


@dataclass(frozen=True, kw_only=True)
class FedMoE(Method):
    """FedMoE as described in the module's docstring.

    Attributes:
        num_experts: E.
        top_k: experts per token.
        theta: activation mass that a client's experts must reach, in 0..1.
        num_neighbors: K, at least 1.
        load_balance: weight of the load balance term.
        noise: noise of the experts' initial values, see `ExpertMixture`.
    """

    name: ClassVar[str] = "fedmoe"
    single_model: ClassVar[bool] = False

    num_experts: int = 4
    top_k: int = 2
    theta: float = 0.8
    num_neighbors: int = 3
    load_balance: float = 0.01
    noise: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(f"top_k: expected 1..{self.num_experts} (num_experts), got {self.top_k}")
        if not 0 < self.theta <= 1:
            raise ValueError(f"theta: expected a number above 0 and at most 1, got {self.theta}")
        if self.num_neighbors < 1:
            raise ValueError(f"num_neighbors: expected at least 1, got {self.num_neighbors}")
        if min(self.load_balance, self.noise) < 0:
            raise ValueError("load_balance, noise: expected numbers of at least 0")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return search in round 1, train in later rounds."""
        name, weights = "search" if round_number == 1 else "train", {"load_balance": self.load_balance}
        statistics = {VALIDATION_LOSS: (1,), ACTIVATION: (self.num_experts,)}
        return (Phase(name, TRAINED, TRAINED, loss_weights=weights, statistics=statistics, validates=True),)

    def final_phase(self, rounds: int) -> Phase:
        """Return `final`, which trains nothing and uses the last confirmed sets of experts."""
        return Phase("final", frozenset(), TRAINED)

    def make_connector(
        self, phase: Phase, client: ClientInfo, projector: Projector, received: State | None = None
    ) -> Connector:
        """Build a mixture of the experts that the server sent; of all experts if it has sent none."""
        if phase.name != "search" and received is None:
            raise ValueError("fedmoe: `received` is None; expected the payload, which decides the client's experts")
        sent = {expert_of(name) for name in received or {}} - {None}
        held = [expert in sent for expert in range(self.num_experts)] if sent else None
        return ExpertMixture(
            projector, self.num_experts, top_k=self.top_k, seed=client.seed, noise=self.noise, held=held
        )

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return LoRA and the client's experts and router rows; all experts and rows until some are chosen for it."""
        held = server.per_client.get(client.client, {}).get(PROVEN if phase.name == "final" else HELD)
        return {
            name: value
            for name, value in server.shared.items()
            if held is None or (expert := expert_of(name)) is None or held[expert] > 0
        }

    def rejection_reason(self, phase: Phase, update: Update) -> str:
        """Reject activation probabilities that are negative or all zero."""
        shares = update.statistics[ACTIVATION]
        return "" if shares.min() >= 0 and shares.sum() > 0 else f"{ACTIVATION}: no probabilities"

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average over holders; choose experts for new clients, revise those of the other participants."""
        updates, known = sort_by_client(updates), dict(server.per_client)
        first = {u.client: self._first_experts(u) for u in updates if u.client not in known}
        revised = {u.client: self._next_experts(u, known) for u in updates if u.client in known}
        per_client = {**known, **first, **revised}
        experts = {str(k): indices_of(per_client[k][HELD]) for k in sorted(per_client)}
        tried = [k for k in sorted(per_client) if not torch.equal(per_client[k][HELD], per_client[k][PROVEN])]
        shared = mean_over_holders(updates, server.shared, mean)
        return ServerState(shared, per_client, {"experts": experts, "tried": tried})

    def _first_experts(self, update: Update) -> State:
        shares = update.statistics[ACTIVATION]
        held = mask_of(choose_experts(shares.tolist(), self.theta), self.num_experts)
        return {ACTIVATION: shares, HELD: held, PROVEN: held, VALIDATION_LOSS: update.statistics[VALIDATION_LOSS]}

    def _next_experts(self, update: Update, known: Mapping[int, State]) -> State:
        """Choose a client's next experts: keep what helped, undo what did not, or try the recommended set."""
        own, loss = known[update.client], update.statistics[VALIDATION_LOSS]
        if loss < own[VALIDATION_LOSS]:
            return {**own, PROVEN: own[HELD], VALIDATION_LOSS: loss}
        if not torch.equal(own[HELD], own[PROVEN]):
            return {**own, HELD: own[PROVEN]}
        probabilities = {client: state[ACTIVATION] for client, state in known.items()}
        held = {client: indices_of(state[HELD]) for client, state in known.items()}
        tried = recommend_experts(update.client, probabilities, held, self.num_neighbors)
        return {**own, HELD: mask_of(tried, self.num_experts), VALIDATION_LOSS: loss}
