"""FedAvgM. Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019, arXiv 1909.06335.

Server: Delta = sum_k (n_k / n) theta_k - theta_g;   v = beta v + Delta, v_0 = 0;   theta_g += v. LoRA and connector.

With a constant Delta the step tends to Delta / (1 - beta), ten times FedAvg's with the paper's beta = 0.9, which is the
default here.

Deviations: clients train with AdamW instead of SGD, like every method here, with a schedule that restarts every
round; the server's rate is 1, as in the paper's equations; momentum is plain, without Nesterov's look-ahead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pilot.methods.server_optimiser import ServerOptimiser


@dataclass(frozen=True, kw_only=True)
class FedAvgM(ServerOptimiser):
    """Averaging with momentum on the server.

    Attributes:
        beta: momentum, in [0, 1); 0 is FedAvg.
    """

    name: ClassVar[str] = "fedavgm"

    beta: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta: expected a number in [0, 1), got {self.beta}")

    def moments(self) -> Mapping[str, float]:
        """Return the initial value of v, 0."""
        return {"momentum": 0.0}

    def step(self, delta: Tensor, moments: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return v = beta v + Delta, which is both the step and the new moment."""
        v = self.beta * moments["momentum"] + delta
        return v, {"momentum": v}
