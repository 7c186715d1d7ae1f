"""FedProx. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, eq. 2.

Client: L_ce + mu / 2 * ||theta - theta_g||^2 (the squared norm), theta_g the model at the round's start.
Server: theta = sum_k (n_k / n) theta_k over LoRA and connector.

Deviations: AdamW instead of SGD, like every method here; every client does all of its local steps, so the paper's
partial updates of stragglers do not occur; weights are numbers of examples.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pilot.methods.averaging import Averaging
from pilot.methods.base import State
from pilot.methods.penalties import squared_distance


@dataclass(frozen=True, kw_only=True)
class FedProx(Averaging):
    """Averaging with a proximal term; mu = 0.01 is usual for LoRA."""

    name: ClassVar[str] = "fedprox"

    mu: float = 0.01

    def __post_init__(self) -> None:
        if self.mu < 0:
            raise ValueError(f"mu: expected a number of at least 0, got {self.mu}")

    def penalty(self, trainable: State, received: State) -> Tensor:
        """Return mu / 2 * ||theta - theta_g||^2 over all trainable parameters, in float32."""
        return self.mu / 2 * squared_distance(trainable, received)
