"""Clustered. Sattler et al., "Clustered Federated Learning: Model-Agnostic Distributed Multitask Optimization under
Privacy Constraints", IEEE TNNLS 2021 (arXiv 1910.01991).

All clients start in one cluster. Server, per cluster C, Delta_k = theta_k - theta_C over LoRA and connector:

    theta_C = sum_(k in C) (n_k / n_C) theta_k

After the warm-up, before this averaging, C is cut in two if

    ||sum_k (n_k / n_C) Delta_k|| < stationarity max_k ||Delta_k||   and   sqrt((1 - alpha) / 2) > separation

alpha is the largest cosine of updates across the cut, and the cut is the one that minimises it. The parts are then
tested in the same way.

Deviations: the paper's thresholds are absolute, eps_1 on the left and eps_2 on the right; here their ratio is used, so
that no scale must be known. The paper cuts near a stationary point, which no cluster reaches in a dozen rounds of
AdamW, whose steps do not shrink with the gradient; hence a warm-up counted in rounds and a large threshold: with T
tasks of similar clients and unrelated updates the norms' ratio is about 1 / sqrt(T). The parts are tested with the same
round's updates instead of after further training. Clients without an update join the larger part. The defaults are
ours.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pilot.methods.averaging import PLAIN_GROUPS, Averaging, mean_of_updates
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
    without,
)
from pilot.methods.similarity import bipartition, cosine_similarities, flat_update

INITIAL, CLUSTER = "initial", "cluster"
ID = f"{CLUSTER}.lowest_client"


@dataclass(frozen=True, kw_only=True)
class Clustered(Averaging):
    """One averaged model per cluster; clusters are found from the updates.

    Attributes:
        warm_up: rounds of plain FedAvg, at least 0.
        stationarity: eps_1 / eps_2, above 0; a larger value cuts sooner.
        separation: gamma_max, in 0..1; a larger value cuts less.
    """

    name: ClassVar[str] = "clustered"
    single_model: ClassVar[bool] = False

    warm_up: int = 1
    stationarity: float = 0.6
    separation: float = 0.5

    def __post_init__(self) -> None:
        if self.warm_up < 0:
            raise ValueError(f"warm_up: expected at least 0, got {self.warm_up}")
        if not self.stationarity > 0:
            raise ValueError(f"stationarity: expected a number above 0, got {self.stationarity}")
        if not 0 <= self.separation <= 1:
            raise ValueError(f"separation: expected a number in 0..1, got {self.separation}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return `average` during the warm-up, then `cluster`; both are the same on clients."""
        name = "average" if round_number <= self.warm_up else "cluster"
        return (Phase(name=name, trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS),)

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Put all clients in one cluster, named after its lowest client; store the initial model for first updates."""
        lowest = float(min(info.client for info in clients))
        return ServerState(prefixed(initial, INITIAL), {info.client: {ID: torch.tensor(lowest)} for info in clients})

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the model of the client's cluster; nothing before the first aggregation."""
        return without(server.per_client.get(client.client, {}), {CLUSTER})

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Cut clusters, then average inside them; a cluster without an update is unchanged."""
        present = {update.client: update for update in sort_by_client(updates)}
        deltas_by_client = (
            {k: self._update_delta(u, server, phase) for k, u in present.items()} if phase.name == "cluster" else {}
        )
        per_client = dict(server.per_client)
        cuts: list[dict[str, Any]] = []
        for members in clusters(server.per_client):
            here = [client for client in members if client in present]
            parts = (
                self._split([present[client] for client in here], deltas_by_client, cuts)
                if deltas_by_client and here
                else [here]
            )
            larger = max(parts, key=len)
            for part in filter(None, parts):
                theta = mean_of_updates((present[client] for client in part), phase.shared, mean)
                joined = sorted({*part, *(set(members) - set(here) if part is larger else ())})
                per_client |= {k: {**theta, ID: torch.tensor(float(joined[0]))} for k in joined}
        return ServerState({}, per_client, {"clusters": clusters(per_client), "cuts": cuts})

    def _update_delta(self, update: Update, server: ServerState, phase: Phase) -> Tensor:
        before = without(server.per_client[update.client], {CLUSTER}) or unprefixed(server.shared, INITIAL)
        return flat_update(select(update.state, phase.shared), before)

    def _split(
        self, members: list[Update], deltas_by_client: Mapping[int, Tensor], cuts: list[dict[str, Any]]
    ) -> list[list[int]]:
        """Return the clients of each part, recursively; append a row to `cuts` for every cut that was tested."""
        clients = [update.client for update in members]
        if len(members) < 2:
            return [clients]
        deltas, total = [deltas_by_client[client] for client in clients], sum(update.num_examples for update in members)
        mean = torch.stack([u.num_examples / total * delta for u, delta in zip(members, deltas, strict=True)]).sum(0)
        longest = max(delta.norm().item() for delta in deltas)
        ratio = mean.norm().item() / longest if longest else 1.0  # without any change, clients cannot be told apart
        first, second, alpha = bipartition(cosine_similarities(deltas))
        cut = ratio < self.stationarity and math.sqrt((1 - alpha) / 2) > self.separation
        cuts.append({"clients": clients, "stationarity": ratio, "cross_similarity": alpha, "cut": cut})
        halves = ([members[position] for position in half] for half in (first, second))
        return [part for half in halves for part in self._split(half, deltas_by_client, cuts)] if cut else [clients]


def clusters(per_client: Mapping[int, State]) -> list[list[int]]:
    """Return the clients of each cluster, both ascending."""
    ids = sorted({state[ID].item() for state in per_client.values()})
    return [[client for client in sorted(per_client) if per_client[client][ID].item() == i] for i in ids]
