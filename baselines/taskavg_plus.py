"""TaskAvg with single parts of Pilot, or with momentum: ours, to see which part pays beside averaging inside each task.

`taskavg` is above Pilot on several tasks here for fewer bytes, so each part is added to it alone, as an option:

- `beta`: momentum on the server for each task (Hsu et al. 2019, arXiv 1909.06335), with x the model sent before and x'
  the task's mean:  v = beta v + (x' - x), v = 0 at first;  x += v.
- `client_adapter`: image tokens are psi_t(H) + psi_s(H), as in stage 1 of Pilot (Xiong et al., AAAI 2025). psi_t is
  averaged inside the task, psi_s never leaves the client; both are trained in every round, without a difference loss.
- `gap_text`: text adapters are mixed between all clients by distance, before the widest gap (`pilot_gap_ata`), instead
  of being averaged inside the task; with `beta`, each client's text adapter has its own momentum.

No option sends more than `taskavg` does. With beta 0 and neither of the others, it is `taskavg`. A task or client
without an update keeps x and v.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from pilot.connector.base import Connector
from pilot.connector.projector import Projector
from pilot.connector.two_stage import TaskClientConnector
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
from pilot.methods.gap import mix_before_gap
from pilot.methods.pilot import Pilot

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
        """Return the text adapter that Pilot gives a client that has not trained, if they are mixed by distance."""
        if not self.gap_text:
            return {}
        ids = sorted({int(name.split(".")[1]) for name in server.shared if name.startswith(f"{CLIENT}.")})
        texts = {number: unprefixed(server.shared, f"{CLIENT}.{number}") for number in ids}
        return Pilot().newcomer_state(ServerState({}, texts), client, initial)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average within every task that has an update; mix text adapters by distance; step with momentum."""
        arrived = sort_by_client(updates)
        averaged = phase.shared - {TEXT} if self.gap_text else phase.shared
        by_task: dict[str, list[Update]] = {}
        for update in arrived:
            by_task.setdefault(update.task, []).append(update)
        sent: State = {}
        for task, members in by_task.items():
            sent |= prefixed(mean_of_updates(members, averaged, mean), f"{TASK}.{task}")
        record: dict[str, Any] = {"tasks": {task: [u.client for u in us] for task, us in by_task.items()}}
        if self.gap_text:
            mixed, neighbours = mix_before_gap(arrived)
            record |= neighbours
            for update, text in zip(arrived, mixed, strict=True):
                sent |= prefixed(text, f"{CLIENT}.{update.client}")
        return ServerState(
            dict(server.shared) | (self._step(sent, server.shared) if self.beta else sent), record=record
        )

    def _step(self, sent: State, shared: Mapping[str, Tensor]) -> State:
        """Return x + v and v for every tensor that would be sent without momentum."""
        moved: State = {}
        for name, value in sent.items():
            plain = name.split(".", 2)[2]
            before = shared[name] if name in shared else shared[f"{INITIAL}.{plain}"]
            change = value - before
            kept = shared.get(f"{MOMENTUM}.{name}")
            velocity = change if kept is None else self.beta * kept + change
            moved |= {name: before + velocity, f"{MOMENTUM}.{name}": velocity}
        return moved
