"""Pilot whose clients share LoRA's A: our variant of Pilot (Xiong et al., AAAI 2025), not the paper's.

Guo et al., "Selective Aggregation for Low-Rank Adaptation in Federated Learning" (FedSA-LoRA, arXiv 2410.01463), find
that A learns what clients have in common and B what is specific to a client. So the server averages A over all clients,
by numbers of examples, and mixes only B as ATA does, by distances between the B:

    A' = sum_k (n_k / n) A_k;    B_k' = a_k B_k + (1 - a_k) sum_(j in N_M(k)) w_kj B_j

A goes to all clients, also to those that did not take part. It sends no more bytes than Pilot, but for the first A of a
client that joins late. With one A for all, the product of mixed factors is the mixed product. Everything
else is as in Pilot.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pilot.methods.averaging import mean_of_updates
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Phase,
    ServerState,
    State,
    Update,
    select,
    sort_by_client,
    weighted_mean,
)
from pilot.methods.lora_products import A, B
from pilot.methods.pilot import Mixed, Pilot, mixing_record
from pilot.methods.text_aggregation import mix, neighbourhoods_from_distances, pairwise_distances


@dataclass(frozen=True, kw_only=True)
class PilotSharedA(Pilot):
    """Pilot that averages A over all clients and mixes B between nearby ones."""

    name: ClassVar[str] = "pilot_shared_a"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.adaptive_text_aggregation or self.distance != "parameters":
            raise ValueError(
                "adaptive_text_aggregation, distance: expected true and 'parameters'; distances are between B factors"
            )

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return what Pilot's clients receive; to a client that has no B yet, A as well."""
        common = select(next(iter(server.per_client.values()), {}), {A})
        return common | super().payload(server, client, phase)

    def newcomer_state(self, server: ServerState, client: ClientInfo, initial: State) -> State:
        """Return the B that mixing gives a client that has not trained; A comes with the payload."""
        return select(super().newcomer_state(server, client, initial), {B})

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Aggregate as Pilot, then give the new A to absent clients, too."""
        arrived = sort_by_client(updates)
        after = super().aggregate(phase, arrived, server, mean)
        common = select(after.per_client[arrived[0].client], {A})
        return replace(after, per_client={k: {**text, **common} for k, text in after.per_client.items()})

    def mix_text_adapters(self, updates: Sequence[Update], mean: Mean = weighted_mean) -> Mixed:
        """Average A over all clients and mix B by ATA."""
        shared = mean_of_updates(updates, {A}, mean)
        own = [select(update.state, {B}) for update in updates]
        distances = pairwise_distances(own, self.distance)
        counts = [update.num_examples for update in updates]
        neighbourhoods = neighbourhoods_from_distances(distances, counts, self.num_neighbors, self.self_weight)
        order = [name for name in updates[0].state if name in shared or name in own[0]]
        mixed = [{name: {**shared, **state}[name] for name in order} for state in mix(own, neighbourhoods)]
        return mixed, mixing_record(updates, distances, neighbourhoods)
