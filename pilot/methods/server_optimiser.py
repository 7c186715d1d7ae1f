"""Methods whose server takes an optimiser step from the global model, with the mean update in place of a gradient.

    Delta = sum_k (n_k / n) theta_k - theta_g;   theta_g += step(Delta, moments)

Until the first aggregation the server keeps `initial.*`, the model that all clients derive from the run's seed and that
is therefore not sent; afterwards it keeps `global.*`.
"""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pilot.methods.averaging import Averaging, mean_of_updates
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

INITIAL = "initial"
GLOBAL = "global"


def global_model(server: ServerState) -> State:
    """Return the model that all clients start the next phase from: the aggregated one, or else the initial one."""
    return unprefixed(server.shared, GLOBAL) or unprefixed(server.shared, INITIAL)


def unweighted_mean(
    updates: Iterable[Update], groups: Collection[str], mean: Mean = weighted_mean
) -> tuple[State, int]:
    """Average the updates' `groups` with equal weights; return the mean and the number of clients."""
    count = 0

    def states() -> Iterator[tuple[State, float]]:
        nonlocal count
        for update in updates:
            count += 1
            yield select(update.state, groups), 1.0

    return mean(states()), count


def difference(state: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> State:
    """Compute state - reference for every name in `state`, in float32."""
    return {name: value.float() - reference[name].float() for name, value in state.items()}


def norm(state: Mapping[str, Tensor]) -> float:
    """Compute the L2 norm over all tensors in float64, summed by sorted name, since engines order names differently."""
    return float(sum(state[name].double().square().sum() for name in sorted(state)) ** 0.5)


@dataclass(frozen=True, kw_only=True)
class ServerOptimiser(Averaging):
    """Averaging whose server takes an optimiser step instead of adopting the mean."""

    @abstractmethod
    def moments(self) -> Mapping[str, float]:
        """Return the initial value of each of the optimiser's moments, by name."""

    @abstractmethod
    def step(self, delta: Tensor, moments: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the step to add to a tensor of theta, and the new moments.

        Args:
            delta: the tensor's mean update, float32.
            moments: its moments, of the same shape.
        """

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Store the initial model, from which the first update is measured."""
        return ServerState(prefixed(initial, INITIAL))

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the global model; nothing before the first aggregation."""
        return unprefixed(server.shared, GLOBAL)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Take one step of the optimiser; record the norms of Delta and of the step."""
        before = global_model(server)
        delta = difference(mean_of_updates(updates, phase.shared, mean), before)
        steps: State = {}
        shared: State = {}
        for name, value in delta.items():
            moments = {
                moment: server.shared.get(f"{moment}.{name}", torch.full_like(value, start))
                for moment, start in self.moments().items()
            }
            steps[name], after = self.step(value, moments)
            shared[f"{GLOBAL}.{name}"] = (before[name].float() + steps[name]).to(before[name].dtype)
            shared |= {f"{moment}.{name}": tensor for moment, tensor in after.items()}
        return ServerState(shared, record={"delta_norm": norm(delta), "step_norm": norm(steps)})


@dataclass(frozen=True, kw_only=True)
class AdaptiveOptimiser(ServerOptimiser):
    """FedOpt, Algorithm 2 of Reddi et al., "Adaptive Federated Optimization", ICLR 2021, without bias correction.

        m = beta1 m + (1 - beta1) Delta;   v = second_moment(v, Delta);   theta += eta m / (sqrt(v) + tau)

    m starts at 0, v at tau^2, the smallest value that the algorithm allows.

    Attributes:
        eta: the server's learning rate.
        beta1: decay of the first moment, in [0, 1).
        tau: adaptivity, above 0.
    """

    eta: float = 0.01
    beta1: float = 0.9
    tau: float = 0.001

    def __post_init__(self) -> None:
        """Check the options."""
        for option in ("eta", "tau"):
            if not getattr(self, option) > 0:
                raise ValueError(f"{option}: expected a number above 0, got {getattr(self, option)}")
        if not 0 <= self.beta1 < 1:
            raise ValueError(f"beta1: expected a number in [0, 1), got {self.beta1}")

    @abstractmethod
    def second_moment(self, v: Tensor, delta: Tensor) -> Tensor:
        """Return the new v."""

    def moments(self) -> Mapping[str, float]:
        """Return the initial values: 0 for m, tau^2 for v."""
        return {"first_moment": 0.0, "second_moment": self.tau**2}

    def step(self, delta: Tensor, moments: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Apply the equations of the class."""
        m = self.beta1 * moments["first_moment"] + (1 - self.beta1) * delta
        v = self.second_moment(moments["second_moment"], delta)
        return self.eta * m / (v.sqrt() + self.tau), {"first_moment": m, "second_moment": v}
