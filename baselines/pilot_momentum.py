"""Pilot with momentum on the server: our variant of Pilot (Xiong et al., AAAI 2025), not the paper's.

Hsu et al. 2019 (FedAvgM, arXiv 1909.06335) accumulate the mean updates of past rounds. Here Pilot's server does so for
each task adapter and each client's text adapter, with x the value sent before and x' the result of Pilot's aggregation:

    v = beta v + (x' - x), v = 0 at first;    x += v

The server keeps v, which is as large as what it sends; no additional bytes are sent. A client or task without an update
keeps x and v. With `gap`, text adapters are mixed with the neighbours before the widest gap (`pilot_gap_ata`).
Everything else is as in Pilot.
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
    unprefixed,
    weighted_mean,
)
from pilot.methods.gap import UNBOUNDED, mix_before_gap
from pilot.methods.momentum import momentum_step
from pilot.methods.pilot import Mixed, Pilot

INITIAL, MOMENTUM = "initial", "momentum"


@dataclass(frozen=True, kw_only=True)
class PilotMomentum(Pilot):
    """Pilot whose server continues in the direction of past rounds.

    Attributes:
        beta: momentum, in [0, 1); 0 is Pilot.
        gap: whether text adapters are mixed with the neighbours before the gap instead of the M nearest.
    """

    name: ClassVar[str] = "pilot_momentum"

    beta: float = 0.5
    gap: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta: expected a number in [0, 1), got {self.beta}")
        if not self.adaptive_text_aggregation:
            raise ValueError("adaptive_text_aggregation: expected true, since each text adapter has its own momentum")

    def mix_text_adapters(self, updates: Sequence[Update], mean: Mean = weighted_mean) -> Mixed:
        """Mix as Pilot, or with the neighbours before the gap."""
        if self.gap:
            return mix_before_gap(updates, self.distance, UNBOUNDED, self.self_weight)
        return super().mix_text_adapters(updates, mean)

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Store the initial model, from which the first update is measured."""
        return ServerState(prefixed(initial, INITIAL))

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Aggregate as Pilot, then take a step with momentum towards the result."""
        updates = list(updates)
        after = super().aggregate(phase, updates, server, mean)
        start, momentum = unprefixed(server.shared, INITIAL), unprefixed(server.shared, MOMENTUM)
        shared, per_client = dict(after.shared), dict(after.per_client)
        for task in sorted({update.task for update in updates}):
            at = f"task_adapter.{task}."
            own = {name: value for name, value in after.shared.items() if name.startswith(at)}
            before = {
                name: server.shared[name] if name in server.shared else start["task_adapter." + name.removeprefix(at)]
                for name in own
            }
            shared |= momentum_step(own, before, momentum, self.beta)
        for update in updates:
            own = after.per_client[update.client]
            before = server.per_client.get(update.client) or select(start, {"text_adapter"})
            names = prefixed(own, str(update.client)), prefixed(before, str(update.client))
            moved = momentum_step(*names, momentum, self.beta)
            per_client[update.client] = unprefixed(moved, str(update.client))
        return ServerState(shared | prefixed(momentum, MOMENTUM), per_client, after.record)
