"""FedDyn. Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021, Algorithm 1.

Client: L_ce + alpha / 2 ||theta - theta_g||^2 - <h_k, theta>;   then h_k -= alpha (theta_k - theta_g), which stays.
Server, P the participants of N clients, unweighted, as in the paper:

    h -= alpha / N sum_P (theta_k - theta_g);   theta_g = mean_P theta_k - h / alpha

over LoRA and connector; h and h_k start at 0. With all clients present the first step is twice FedAvg's.

Deviations: AdamW and the round's steps instead of SGD to a stationary point. Only there is h_k the gradient of the
client's own loss, so h may grow with drift that no gradient explains. alpha = 0.01 is the default here.
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
    unprefixed,
    weighted_mean,
)
from pilot.methods.penalties import inner_product, squared_distance
from pilot.methods.server_optimiser import GLOBAL, INITIAL, difference, global_model, norm, unweighted_mean

OWN, SERVER, COUNT = "own_dynamic", "dynamic", "num_clients"


@dataclass(frozen=True, kw_only=True)
class FedDyn(Averaging):
    """Averaging with a dynamic regulariser.

    Attributes:
        alpha: weight of the regulariser, above 0.
    """

    name: ClassVar[str] = "feddyn"

    alpha: float = 0.01

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"alpha: expected a number above 0, got {self.alpha}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase; h_k (`own_dynamic`) is kept besides the model."""
        return (Phase(name="train", trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS, auxiliary=frozenset({OWN})),)

    def penalty(self, trainable: State, received: State) -> Tensor:
        """Return alpha / 2 ||theta - theta_g||^2 - <h_k, theta>."""
        proximal = self.alpha / 2 * squared_distance(trainable, received)
        own = unprefixed(received, OWN)
        return proximal - inner_product(trainable, own) if own else proximal

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send the model; keep h_k - alpha (theta_k - theta_g)."""
        split = super().split_result(phase, client, result)
        change = difference(split.shared, result.start)
        own = {
            f"{OWN}.{name}": result.stored.get(f"{OWN}.{name}", torch.zeros_like(value)) - self.alpha * value
            for name, value in change.items()
        }
        return SplitResult(split.shared, {**split.private, **own})

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Store theta_g and N; h is 0 and not stored."""
        return ServerState({**prefixed(initial, INITIAL), COUNT: torch.tensor(float(len(clients)))})

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return theta_g; nothing before the first aggregation."""
        return unprefixed(server.shared, GLOBAL)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Apply the equations of the module; the sum is |P| times the mean, also if the mean is robust."""
        means, num_participants = unweighted_mean(updates, phase.shared, mean)
        delta = difference(means, global_model(server))
        share = num_participants / server.shared[COUNT].item()
        dynamic = {
            name: server.shared.get(f"{SERVER}.{name}", 0.0) - self.alpha * share * value
            for name, value in delta.items()
        }
        theta = {name: (value - dynamic[name] / self.alpha).to(value.dtype) for name, value in means.items()}
        shared = {**prefixed(theta, GLOBAL), **prefixed(dynamic, SERVER), COUNT: server.shared[COUNT]}
        return ServerState(shared, record={"delta_norm": norm(delta), "dynamic_norm": norm(dynamic)})
