"""FedAdam. Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2.

Server, per coordinate, over LoRA and connector:

    Delta = sum_k (n_k / n) theta_k - theta_g
    m = beta1 m + (1 - beta1) Delta,   v = beta2 v + (1 - beta2) Delta^2,   theta_g += eta m / (sqrt(v) + tau)

m_0 = 0, v_0 = tau^2 (the minimum that the algorithm allows), no bias correction, Delta (not m) in v. Several libraries
correct the bias, start v at 0 or take an unweighted mean.

Deviations: clients train with AdamW instead of SGD, like every method here; Delta is weighted by numbers of examples
where Algorithm 2 has a plain mean. beta1 = 0.9, beta2 = 0.99 are the paper's; eta = 0.01 and tau = 0.001, both from
its grid, suit updates of about 0.001 to 0.01 per coordinate.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pilot.methods.server_optimiser import AdaptiveOptimiser


@dataclass(frozen=True, kw_only=True)
class FedAdam(AdaptiveOptimiser):
    """Adam on the server; `AdaptiveOptimiser` describes what Adam, Yogi and Adagrad have in common.

    Attributes:
        beta2: decay of the second moment, in [0, 1).
    """

    name: ClassVar[str] = "fedadam"

    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"beta2: expected a number in [0, 1), got {self.beta2}")

    def second_moment(self, v: Tensor, delta: Tensor) -> Tensor:
        """Return beta2 v + (1 - beta2) Delta^2."""
        return self.beta2 * v + (1 - self.beta2) * delta.square()
