"""Pilot with text adapters averaged within tasks: our variant of Pilot (Xiong et al., AAAI 2025), not the paper's.

ATA mixes in the M nearest clients, so a client whose task has fewer than M others always takes in a client of another
task. The server knows every client's task, which Pilot uses for its visual adapters; here also for text adapters:

    Theta_k' = sum_(j in task of k) (n_j / n_task) Theta_j

for all clients of the task, also for those that did not take part and for those that join later. It sends no more bytes
than Pilot, but for the first text adapter of a client that joins late. Everything else is as in Pilot.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

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
from pilot.methods.pilot import Mixed, Pilot, task_aware_aggregation

TEXT = "task_text"


@dataclass(frozen=True, kw_only=True)
class PilotTaskText(Pilot):
    """Pilot that averages text adapters as it does task adapters; the server keeps `task_text.<task name>.*`."""

    name: ClassVar[str] = "pilot_task_text"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.adaptive_text_aggregation:
            raise ValueError("adaptive_text_aggregation: expected true; without it, the method is pilot_fedavg_text")

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the text adapter of the client's task, and what Pilot's clients receive."""
        return unprefixed(server.shared, f"{TEXT}.{client.task}") | super().payload(server, client, phase)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Aggregate as Pilot; keep text adapters by task instead of by client."""
        arrived = sort_by_client(updates)
        after = super().aggregate(phase, arrived, server, mean)
        shared = dict(after.shared)
        for update in arrived:
            shared |= prefixed(after.per_client[update.client], f"{TEXT}.{update.task}")
        return ServerState(shared, {}, after.record)

    def mix_text_adapters(self, updates: Sequence[Update], mean: Mean = weighted_mean) -> Mixed:
        """Average text adapters within each task; record each task's clients."""
        states = [select(update.state, {"text_adapter"}) for update in updates]
        tasks = [update.task for update in updates]
        means = task_aware_aggregation(states, [update.num_examples for update in updates], tasks, mean)
        members = {task: [update.client for update in updates if update.task == task] for task in means}
        return [means[task] for task in tasks], {"clusters": members}
