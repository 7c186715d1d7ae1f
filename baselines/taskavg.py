"""TaskAvg. FedAvg inside each task: the baseline that knows the task labels, as Pilot does.

Server, for every task t:   theta_t = sum_(k in t) (n_k / n_t) theta_k over LoRA and connector; n_t = sum_(k in t) n_k.

Not from a paper: McMahan et al.'s FedAvg (AISTATS 2017), one federation per task, with nothing exchanged between
tasks. A task without an update keeps its model. Clients train with AdamW, as with FedAvg here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import Averaging, mean_of_updates
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Phase,
    ServerState,
    State,
    Update,
    prefixed,
    sort_by_client,
    unprefixed,
    weighted_mean,
)


@dataclass(frozen=True, kw_only=True)
class TaskAvg(Averaging):
    """One averaged model per task; the server keeps `<task name>.*`."""

    name: ClassVar[str] = "taskavg"
    single_model: ClassVar[bool] = False

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the model of the client's task; nothing before its first aggregation."""
        return unprefixed(server.shared, client.task)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average within every task that has an update."""
        by_task: dict[str, list[Update]] = {}
        for update in sort_by_client(updates):
            by_task.setdefault(update.task, []).append(update)
        shared = dict(server.shared)
        for task, members in by_task.items():
            shared |= prefixed(mean_of_updates(members, phase.shared, mean), task)
        return ServerState(shared, record={"tasks": {task: [u.client for u in us] for task, us in by_task.items()}})
