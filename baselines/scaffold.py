"""SCAFFOLD. Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020,
Algorithm 1, option II.

Client: g + c - c_k takes the gradient's place; c_k+ = mean of g over its local steps; sends theta_k and c_k+ - c_k.
Server, P the participants of N clients, means unweighted, as in the paper:

    theta_g += eta_g mean_P (theta_k - theta_g);   c += |P| / N mean_P (c_k+ - c_k)

c and c_k start at 0; c_k never leaves the client. Twice FedAvg's bytes, both ways, after round 1.

Deviations: clients train with AdamW, so the correction enters the gradient (as the penalty <c - c_k, theta>), before
clipping, and AdamW rescales it like the rest; it does not move theta by a constant per step as it would with SGD.
Option II derives c_k+ from the distance travelled, c_k - c + (theta_g - theta_k) / (K eta_l), which is the mean of g
for SGD with a constant rate; under AdamW it is no gradient, so the mean of g itself is used.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
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
    without,
)
from pilot.methods.penalties import inner_product
from pilot.methods.server_optimiser import GLOBAL, INITIAL, difference, global_model, norm, unweighted_mean

CONTROL, OWN, CHANGE, COUNT = "control", "own_control", "control_change", "num_clients"


@dataclass(frozen=True, kw_only=True)
class Scaffold(Averaging):
    """Averaging with control variates.

    Attributes:
        eta_g: the server's learning rate, above 0; 1 takes the mean of the models.
    """

    name: ClassVar[str] = "scaffold"

    eta_g: float = 1.0

    def __post_init__(self) -> None:
        if not self.eta_g > 0:
            raise ValueError(f"eta_g: expected a number above 0, got {self.eta_g}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase; the changes of control variates leave with the model."""
        shared, auxiliary = PLAIN_GROUPS | {CHANGE}, frozenset({CONTROL, OWN, CHANGE})
        return (Phase(name="train", trainable=PLAIN_GROUPS, shared=shared, auxiliary=auxiliary, mean_gradients=True),)

    def penalty(self, trainable: State, received: State) -> Tensor:
        """Return <c - c_k, theta>."""
        return inner_product(trainable, correction(trainable, received))

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send the model and c_k+ - c_k; keep c_k+. `result.gradients` are the means of g + c - c_k."""
        split = super().split_result(phase, client, result)
        control = difference(result.gradients, correction(result.gradients, {**result.stored, **result.payload}))
        own = unprefixed(result.stored, OWN) or {name: torch.zeros_like(value) for name, value in control.items()}
        change = prefixed(difference(control, own), CHANGE)
        return SplitResult({**split.shared, **change}, {**split.private, **prefixed(control, OWN)})

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Store theta_g and N; c is 0 and not stored."""
        theta = prefixed(without(initial, {CHANGE}), INITIAL)
        return ServerState({**theta, COUNT: torch.tensor(float(len(clients)))})

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return theta_g and c; nothing before the first aggregation."""
        return {**unprefixed(server.shared, GLOBAL), **select(server.shared, {CONTROL})}

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Apply the equations of the module; a robust `mean` also applies to the changes of control variates."""
        means, num_participants = unweighted_mean(updates, phase.shared, mean)
        before = global_model(server)
        delta = difference(without(means, {CHANGE}), before)
        theta = {name: (before[name] + self.eta_g * step).to(before[name].dtype) for name, step in delta.items()}
        share = num_participants / server.shared[COUNT].item()
        control = {
            name: server.shared.get(f"{CONTROL}.{name}", 0.0) + share * change
            for name, change in unprefixed(means, CHANGE).items()
        }
        shared = {**prefixed(theta, GLOBAL), **prefixed(control, CONTROL), COUNT: server.shared[COUNT]}
        return ServerState(shared, record={"delta_norm": norm(delta), "control_norm": norm(control)})


def correction(like: State, known: State) -> State:
    """Compute c - c_k for every name in `like`; a control variate that is missing in `known` is 0."""
    return {
        name: known.get(f"{CONTROL}.{name}", torch.zeros_like(value))
        - known.get(f"{OWN}.{name}", torch.zeros_like(value))
        for name, value in like.items()
    }
