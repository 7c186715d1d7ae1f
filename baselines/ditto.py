"""Ditto. Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization", ICML 2021, Algorithm 1.

Per round, with w^t the global model that a client receives, over LoRA and connector:

    global    half of the steps on L_ce from w^t; FedAvg: w^(t+1) = sum_k (n_k / n) theta_k
    personal  the other half on L_ce(v_k) + lambda / 2 ||v_k - w^t||^2 from its last v_k, v_k = w^0 at first

v_k never leaves the client and is the model that is evaluated.

Deviations: AdamW instead of SGD; both models together get the steps that other methods give to one, where the paper
spends more on v_k. The client stores w^t (`anchor.*`) when the global phase ends, so the personal phase costs no
communication. If a client's result of a global phase was rejected, the last w^t that it has stored is the anchor;
without one, its personal phase has no penalty.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pilot.methods.averaging import PLAIN_GROUPS, Averaging
from pilot.methods.base import (
    ClientInfo,
    Mean,
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
from pilot.methods.penalties import squared_distance

ANCHOR, PERSONAL = "anchor", "personal"


@dataclass(frozen=True, kw_only=True)
class Ditto(Averaging):
    """Averaging, and a personal model per client that stays near the global one.

    Attributes:
        strength: lambda, at least 0; at 0 v_k is trained alone.
    """

    name: ClassVar[str] = "ditto"
    single_model: ClassVar[bool] = False

    strength: float = 0.1

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ValueError(f"strength: expected a number of at least 0, got {self.strength}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return the global phase, then the personal one, with half of the steps each."""
        return (
            Phase(name="global", trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS, share_of_steps=0.5),
            Phase(
                name="personal",
                trainable=PLAIN_GROUPS,
                shared=frozenset(),
                auxiliary=frozenset({ANCHOR}),
                share_of_steps=0.5,
            ),
        )

    def initial_state(self, phase: Phase, client: ClientInfo, stored: State, payload: State) -> State:
        """Load w^t in the global phase, v_k in the personal one; without it the initial model remains."""
        return unprefixed(stored, PERSONAL) if phase.name == "personal" else dict(payload)

    def penalty(self, trainable: State, received: State) -> Tensor | None:
        """Return lambda / 2 ||v_k - w^t||^2 if w^t is available, which it is in the personal phase only."""
        anchor = unprefixed(received, ANCHOR)
        return self.strength / 2 * squared_distance(trainable, anchor) if anchor else None

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send the model after the global phase and nothing after the personal one; keep w^t and v_k."""
        if phase.name == "personal":
            return SplitResult({}, {**select(result.stored, {ANCHOR}), **prefixed(result.end, PERSONAL)})
        anchor = prefixed(select(result.start, phase.shared), ANCHOR)
        return SplitResult(select(result.end, phase.shared), {**select(result.stored, {PERSONAL}), **anchor})

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the global model in the global phase, nothing in the personal one."""
        return {} if phase.name == "personal" else dict(server.shared)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average as FedAvg after the global phase; keep the model after the personal one."""
        if phase.name == "personal":
            return ServerState(server.shared)
        return super().aggregate(phase, updates, server, mean)
