"""TaskAvg with single parts of Pilot, or with momentum: ours, to see which part pays beside averaging inside each task.

`taskavg` is above Pilot on several tasks here for fewer bytes, so each part is added to it alone, as an option:

- `beta`: momentum on the server for each task (`pilot.methods.momentum`), with x the model sent before and x' the
  task's mean:  v = beta v + (x' - x), v = 0 at first;  x += v.
- `client_adapter`: image tokens are psi_t(H) + psi_s(H), as in stage 1 of Pilot (Xiong et al., AAAI 2025). psi_t is
  averaged inside the task, psi_s never leaves the client; both are trained in every round, without a difference loss.
- `gap_text`: text adapters are mixed between all clients by distance, before the widest gap (`pilot_gap_ata`), instead
  of being averaged inside the task; with `beta`, each client's text adapter has its own momentum.

No option sends more than `taskavg` does. With beta 0 and neither of the others, it is `taskavg`. A task or client
without an update keeps x and v.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from pilot.connector.base import Connector
from pilot.connector.projector import Projector
from pilot.connector.two_stage import TaskClientConnector
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
from pilot.methods.gap import mix_before_gap
from pilot.methods.momentum import momentum_step
from pilot.methods.pilot import mix_in, task_aware_aggregation

INITIAL, MOMENTUM, TASK, CLIENT = "initial", "momentum", "task", "client"
TEXT = "text_adapter"


@dataclass(frozen=True, kw_only=True)
class TaskAvgPlus(Averaging):
    """One averaged model per task, with options; the server keeps `task.<name>.*`, and `client.<k>.*` with `gap_text`.

    Attributes:
        beta: momentum, in [0, 1); 0 is none.
        client_adapter: whether each client also has an adapter of its own.
        gap_text: whether text adapters are mixed by distance instead of averaged inside tasks.
    """

    name: ClassVar[str] = "taskavg_plus"
    single_model: ClassVar[bool] = False

    beta: float = 0.5
    client_adapter: bool = False
    gap_text: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta: expected a number in [0, 1), got {self.beta}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round; a client adapter is trained, but not shared."""
        shared = frozenset({TEXT, "task_adapter" if self.client_adapter else "connector"})
        own = {"client_adapter"} if self.client_adapter else set()
        return (Phase(name="train", trainable=shared | own, shared=shared),)

    def make_connector(
        self, phase: Phase, client: ClientInfo, projector: Projector, received: State | None = None
    ) -> Connector:
        """Build the plain connector, or the sum of task adapter and client adapter."""
        if self.client_adapter:
            return TaskClientConnector(projector)
        return super().make_connector(phase, client, projector, received)

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Store the initial model, from which momentum's first update is measured; nothing without momentum."""
        return ServerState(prefixed(initial, INITIAL) if self.beta else {})

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the model of the client's task, with the client's own text adapter if they are mixed by distance."""
        of_task = unprefixed(server.shared, f"{TASK}.{client.task}")
        return of_task | unprefixed(server.shared, f"{CLIENT}.{client.client}")

    def newcomer_state(self, server: ServerState, client: ClientInfo, initial: State) -> State:
        """Return what mixing by distance gives a client that has not trained; nothing if texts are not mixed."""
        if not self.gap_text:
            return {}
        ids = sorted({int(name.split(".")[1]) for name in server.shared if name.startswith(f"{CLIENT}.")})
        texts = {number: unprefixed(server.shared, f"{CLIENT}.{number}") for number in ids}
        return mix_in(initial, texts, partial(mix_before_gap, self_weight=0.0))

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average within every task that has an update; mix text adapters by distance; step with momentum."""
        arrived = sort_by_client(updates)
        averaged = phase.shared - {TEXT} if self.gap_text else phase.shared
        tasks, counts = [update.task for update in arrived], [update.num_examples for update in arrived]
        means = task_aware_aggregation([select(update.state, averaged) for update in arrived], counts, tasks, mean)
        record: dict[str, Any] = {"tasks": {task: [u.client for u in arrived if u.task == task] for task in means}}
        sent: State = {}
        for task, average in means.items():
            sent |= prefixed(average, f"{TASK}.{task}")
        if self.gap_text:
            mixed, neighbours = mix_before_gap(arrived)
            record |= neighbours
            for update, text in zip(arrived, mixed, strict=True):
                sent |= prefixed(text, f"{CLIENT}.{update.client}")
        if not self.beta:
            return ServerState(dict(server.shared) | sent, record=record)
        start, momentum = unprefixed(server.shared, INITIAL), unprefixed(server.shared, MOMENTUM)
        before = {name: server.shared[name] if name in server.shared else start[name.split(".", 2)[2]] for name in sent}
        moved = momentum_step(sent, before, momentum, self.beta)
        return ServerState(dict(server.shared) | moved | prefixed(momentum, MOMENTUM), record=record)
