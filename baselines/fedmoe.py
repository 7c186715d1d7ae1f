"""FedMoE (after Mei et al., "FedMoE: Personalized Federated Learning via Heterogeneous Mixture of Experts",
2024, arXiv 2408.11304).

Round 1, search: every client trains all E experts and records activation probabilities p_ij. The server then
gives client i the smallest set S_i with sum_{j in S_i} p_ij >= theta. Later rounds, train: client i holds,
trains and sends the experts and router rows of S_i only. Server, for expert and router row j:

    held by nobody: unchanged;   else: psi_j = sum_i n_i psi_ij / sum_i n_i over its holders {i : j in S_i}.

LoRA: sum_k (n_k / n) theta_k. L = L_ce + load_balance * L_b.

Deviations: the paper's backbone is a Switch Transformer, here the experts are E connector copies under a
linear router, top-k, weights renormalised; the search takes one round, and who misses it holds all experts;
sorting finds the set, as the paper's binary search would without its memory budget. p_ij sums to 1 over j.
theta = 0.8 is our choice. Several papers are called FedMoE; which one Pilot's paper ran is open.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from pilot.connector.base import Connector
from pilot.connector.mixture import ExpertMixture
from pilot.connector.mlp import Projector
from pilot.methods.base import ClientInfo, Mean, Method, Phase, ServerState, State, Update, by_client, weighted_mean

TRAINED = frozenset({"text_adapter", "experts", "router"})
ACTIVATION = "activation_probabilities"
HELD = "held_experts"
_ROUNDING = 1e-6  # a mass that falls short of theta by rounding reaches it


@dataclass(frozen=True, kw_only=True)
class FedMoE(Method):
    """The method of the module's docstring.

    Attributes:
        num_experts: E.
        top_k: experts per token.
        theta: activation mass that a client's experts must reach, in 0..1.
        load_balance: weight of the load balance term.
        noise: of the experts' start, see `ExpertMixture`.
    """

    name: ClassVar[str] = "fedmoe"
    single_model: ClassVar[bool] = False

    num_experts: int = 4
    top_k: int = 2
    theta: float = 0.8
    load_balance: float = 0.01
    noise: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(f"top_k: expected 1..{self.num_experts} (num_experts), got {self.top_k}")
        if not 0 < self.theta <= 1:
            raise ValueError(f"theta: expected a number above 0 and at most 1, got {self.theta}")
        if min(self.load_balance, self.noise) < 0:
            raise ValueError("load_balance, noise: expected numbers of at least 0")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Round 1: search. Later rounds: train."""
        search = round_number == 1
        return (
            Phase(
                name="search" if search else "train",
                trainable=TRAINED,
                shared=TRAINED,
                loss_weights={"load_balance": self.load_balance},
                statistics={ACTIVATION: (self.num_experts,)} if search else {},
            ),
        )

    def make_connector(
        self, phase: Phase, client: ClientInfo, projector: Projector, received: State | None = None
    ) -> Connector:
        """A mixture of the experts that the server sent; of all while it has sent none."""
        if phase.name == "train" and received is None:
            raise ValueError("fedmoe: the payload decides which experts a client holds; pass it as `received`")
        sent = {expert_of(name) for name in received or {}} - {None}
        held = [expert in sent for expert in range(self.num_experts)] if sent else None
        return ExpertMixture(
            projector, self.num_experts, top_k=self.top_k, seed=client.seed, noise=self.noise, held=held
        )

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """LoRA and the client's experts and router rows; all of them while none were chosen for it."""
        held = server.per_client.get(client.client, {}).get(HELD)
        return {
            name: value
            for name, value in server.shared.items()
            if held is None or (expert := expert_of(name)) is None or held[expert] > 0
        }

    def reject(self, phase: Phase, update: Update) -> str:
        """Activation probabilities are not negative and not all zero."""
        shares = update.statistics.get(ACTIVATION)
        return "" if shares is None or (shares.min() >= 0 and shares.sum() > 0) else f"{ACTIVATION}: no probabilities"

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean | None = None
    ) -> ServerState:
        """Averages over holders; after the search, the choice of experts (`per_client`, 1 where held)."""
        updates = by_client(updates)
        per_client = dict(server.per_client)
        if phase.name == "search":
            for update in updates:
                chosen = choose_experts(update.statistics[ACTIVATION].tolist(), self.theta)
                per_client[update.client] = {HELD: torch.zeros(self.num_experts)}
                per_client[update.client][HELD][list(chosen)] = 1.0
        experts = {str(k): state[HELD].nonzero().flatten().tolist() for k, state in per_client.items()}
        return ServerState(
            mean_over_holders(updates, server.shared, mean or weighted_mean), per_client, {"experts": experts}
        )


def choose_experts(probabilities: Sequence[float], theta: float) -> tuple[int, ...]:
    """The smallest set of experts with at least theta of the mass, ascending; ties by index. Refuses negative mass."""
    total = sum(probabilities)
    if not total > 0 or any(not p >= 0 for p in probabilities):
        raise ValueError(f"activation probabilities: expected non-negative numbers, got {list(probabilities)}")
    chosen: list[int] = []
    mass = 0.0
    for expert in sorted(range(len(probabilities)), key=lambda expert: (-probabilities[expert], expert)):
        if mass >= theta * total - _ROUNDING:
            break
        chosen.append(expert)
        mass += probabilities[expert]
    return tuple(sorted(chosen))


def mean_over_holders(updates: Sequence[Update], previous: Mapping[str, torch.Tensor], mean: Mean) -> State:
    """Per name, the sample-weighted mean over the updates that have it; the previous value where none has."""
    result, names = dict(previous), sorted({name for update in updates for name in update.state})
    together: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        together.setdefault(tuple(k for k, u in enumerate(updates) if name in u.state), []).append(name)
    for holders, held in together.items():
        result |= mean(({name: updates[k].state[name] for name in held}, updates[k].num_examples) for k in holders)
    return result


def expert_of(name: str) -> int | None:
    """3 of `experts.3.linear_1.weight` and of `router.3.weight`; None for any other name."""
    group, _, rest = name.partition(".")
    return int(rest.split(".", 1)[0]) if group in ("experts", "router") else None
