"""Base class of methods whose server takes one update at a time, while other clients work on older models.

The server's state has the global model under its own names, `clock.version` (the number of changes of the model so
far), and for every client at work the update that it will send: it is known to the simulation as soon as the client
starts (`pilot.federation.virtual_clock`), but used only when it arrives. The staleness of an update is the number of
changes of the model between the client's start and its arrival.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pilot.methods.averaging import PLAIN_GROUPS, Averaging
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Phase,
    ServerState,
    State,
    Update,
    prefixed,
    select,
    unprefixed,
    weighted_mean,
)

SENT, CLOCK = "sent", "clock"
VERSION = f"{CLOCK}.version"


@dataclass(frozen=True, kw_only=True)
class Asynchronous(Averaging):
    """One phase per session on LoRA and a plain connector; `take` changes the global model."""

    asynchronous: ClassVar[bool] = True

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Store the model that all start from, at version 0."""
        return ServerState({**initial, VERSION: torch.zeros(1)})

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the global model; nothing before its first change."""
        return select(server.shared, PLAIN_GROUPS) if VERSION in server.shared and version_of(server.shared) else {}

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Keep the updates of clients that start now until they arrive."""
        begun = {update.client: self.begun(select(update.state, phase.shared), server.shared) for update in updates}
        return ServerState(server.shared, {**server.per_client, **begun})

    def begun(self, sent: State, shared: State) -> State:
        """Return what is kept of a session that starts from the model in `shared` and will send `sent`."""
        return {**prefixed(sent, SENT), VERSION: shared[VERSION]}

    def arrive(self, server: ServerState, client: int) -> ServerState:
        """Take the update of a client; nothing if it was refused."""
        session = server.per_client.get(client)
        if session is None:
            return server
        staleness = int(version_of(server.shared) - version_of(session))
        shared, note = self.take(server.shared, session, staleness)
        left = {other: state for other, state in server.per_client.items() if other != client}
        row = {"client": client, "staleness": staleness, **note}
        return ServerState(shared, left, {"arrivals": [*server.record.get("arrivals", ()), row]})

    @abstractmethod
    def take(self, shared: State, session: State, staleness: int) -> tuple[State, dict[str, Any]]:
        """Return the server's state after an arrival, and what `rounds.jsonl` says about it."""


def version_of(state: State) -> float:
    """Return the version of a model, or the one that a session started from."""
    return float(state[VERSION])


def mixed(shared: State, session: State, weight: float) -> State:
    """Return w <- (1 - a) w + a w_k in float64, rounded to the model's type, at the next version."""
    sent = unprefixed(session, SENT)
    model = {
        name: ((1 - weight) * value.double() + weight * sent[name].double()).to(value.dtype)
        for name, value in select(shared, PLAIN_GROUPS).items()
    }
    return {**shared, **model, VERSION: shared[VERSION] + 1}
