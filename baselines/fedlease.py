"""FedLEASE. Wang et al., "Adaptive LoRA Experts Allocation and Selection for Federated Fine-Tuning", NeurIPS 2025,
arXiv 2509.15087.

1. Warm-up: each client trains its own LoRA. Then the server clusters clients by d_kl = the mean over layers of
   1 - cos(B_k, B_l), average linkage, into the M of 2..`max_clusters` clusters with the largest silhouette. Expert j is
   the mean of A and the mean of B over cluster j. Clients that missed the last round of it count with their last LoRA.
2. Client k of cluster j receives all experts and trains A_j, B_j and a router G with 2M - 1 outputs, of which M name
   its own expert and one each of the others; per token, over the M largest weights, scaled to sum to 1:

       y = W x + s sum_e g_e B_e A_e x,    g_e = the sum of w_c over the choices c of expert e,    w = softmax(G x)

   Server: uniform means of A_j, B_j and G over cluster j.

Deviations: the connector is averaged over all clients, weighted by examples. Experts begin with the clusters' means, as
the paper says; in the authors' code each client begins with its own LoRA. All G begin with the same values, drawn from
the run's seed as the authors draw theirs. All seven projections have LoRA and count in d. Clusters of three clients and
more: with two, both are one cluster. Clients without warm-up join the largest one. If no round of the warm-up was
aggregated, the next round that is forms the clusters. AdamW.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pilot.io.seeding import seed_for
from pilot.methods.averaging import PLAIN_GROUPS, mean_of_updates
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Method,
    Phase,
    PhaseResult,
    ServerState,
    SplitResult,
    State,
    Update,
    prefixed,
    select,
    unprefixed,
    weighted_mean,
)
from pilot.methods.mixed_lora import OTHERS, OWN, ROUTER, Mixture, as_other, mixed_state
from pilot.methods.similarity import best_clusters, mean_cosine_distances

CONNECTOR = frozenset({"connector"})
EXPERT, CLUSTER, KEPT = "expert", "cluster", "kept"
WARM_UP, LORA_B = "warm_up", f"{OWN}:lora_B"


@dataclass(frozen=True, kw_only=True)
class FedLease(Method):
    """Experts of clusters of clients, mixed by a router of each layer.

    Attributes:
        warm_up: rounds in which clients train alone, at least 1.
        max_clusters: largest M that is tried, at least 2.
        clusters: M; 0 to choose it by the silhouette.
    """

    name: ClassVar[str] = "fedlease"
    single_model: ClassVar[bool] = False

    warm_up: int = 1
    max_clusters: int = 4
    clusters: int = 0

    def __post_init__(self) -> None:
        for name, least in (("warm_up", 1), ("max_clusters", 2), ("clusters", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return the warm-up on a LoRA of one's own, then training of the cluster's expert and router."""
        if round_number <= self.warm_up:
            phase = Phase(name=WARM_UP, trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS)
            return (phase if round_number == 1 else replace(phase, starts_from="own training"),)
        return (Phase(name="train", trainable=(groups := PLAIN_GROUPS | {ROUTER}), shared=groups),)

    def mixture(self, phase: Phase, received: State) -> Mixture | None:
        """Return M choices of the own expert and one of each other expert."""
        if phase.name == WARM_UP:
            return None
        others = sorted({int(name.split(".")[1]) for name in received if name.startswith(f"{OTHERS}.")})
        return Mixture(choices=(*(0 for _ in range(len(others) + 1)), *others), top=len(others) + 1)

    def initial_state(self, phase: Phase, client: ClientInfo, stored: State, payload: State) -> State:
        """Return the payload; the client's own LoRA during the warm-up, and a router drawn from the seed after it."""
        if phase.name == WARM_UP:
            return {**stored, **payload}
        routers = select(mixed_state(select(payload, {OWN}), self.mixture(phase, payload), 0), {ROUTER})
        return {**{name: _drawn(name, value, client.seed) for name, value in routers.items()}, **payload}

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send what was trained; keep the own LoRA during the warm-up."""
        kept = select(result.end, {OWN}) if phase.name == WARM_UP else {}
        return SplitResult(select(result.end, phase.shared), kept)

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the connector and, after the warm-up, the cluster's expert and router and the other experts."""
        received = select(server.shared, CONNECTOR)
        if phase.name == WARM_UP or not server.per_client:
            return received
        own = _cluster_of(client.client, server.per_client)
        received |= unprefixed(server.shared, f"{EXPERT}.{own}")
        others = sorted({int(state[CLUSTER]) for state in server.per_client.values()} - {own})
        for number, other in enumerate(others, start=1):
            received |= as_other(select(unprefixed(server.shared, f"{EXPERT}.{other}"), {OWN}), number)
        return received

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average connectors over all clients, and experts and routers over clusters, which the last warm-up forms."""
        sent = list(updates)
        experts = {update.client: select(update.state, phase.shared - CONNECTOR) for update in sent}
        clusters = {k: select(state, {CLUSTER}) for k, state in server.per_client.items()}
        if phase.name == WARM_UP or not clusters:
            before = {k: unprefixed(state, KEPT) for k, state in server.per_client.items()}
            experts = {k: select(state, {OWN}) for k, state in sorted({**before, **experts}.items())}
            tried = [self.clusters] if self.clusters else range(2, self.max_clusters + 1)
            labels = best_clusters(mean_cosine_distances([select(each, {LORA_B}) for each in experts.values()]), tried)
            clusters = {k: {CLUSTER: torch.tensor(float(j))} for k, j in zip(experts, labels, strict=True)}
        shared = {**server.shared, **mean_of_updates(sent, CONNECTOR, mean)}
        for j in sorted({_cluster_of(k, clusters) for k in experts}):
            trained = mean((each, 1.0) for k, each in experts.items() if _cluster_of(k, clusters) == j)
            shared |= prefixed(trained, f"{EXPERT}.{j}")
        record = {"clusters": {str(k): int(state[CLUSTER]) for k, state in sorted(clusters.items())}}
        later = experts if phase.name == WARM_UP and self.warm_up > 1 else {}
        return ServerState(shared, {k: v | prefixed(later.get(k, {}), KEPT) for k, v in clusters.items()}, record)

    def largest_messages(self) -> "FedLease":
        """Return the method with the most clusters that it may form."""
        return replace(self, clusters=self.clusters or self.max_clusters)


def _cluster_of(client: int, clusters: Mapping[int, State]) -> int:
    """Return a client's cluster; the largest one if it has none."""
    every = sorted(int(state[CLUSTER]) for state in clusters.values())
    return int(clusters[client][CLUSTER]) if client in clusters else max(every, key=every.count)


def _drawn(name: str, like: Tensor, seed: int) -> Tensor:
    """Draw a router's initial values uniformly from -1 / sqrt(width) to 1 / sqrt(width)."""
    source = torch.Generator().manual_seed(seed_for("router", seed, name))
    return (torch.rand(like.shape, generator=source) * 2 - 1) / math.sqrt(like.shape[1])
