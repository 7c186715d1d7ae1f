"""FedAdagrad. Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2.

Server, per coordinate, over LoRA and connector:

    Delta = sum_k (n_k / n) theta_k - theta_g
    m = beta1 m + (1 - beta1) Delta,   v = v + Delta^2,   theta_g += eta m / (sqrt(v) + tau)

m_0 = 0, v_0 = tau^2 (the minimum that the algorithm allows), no bias correction. beta1 = 0 by default: Adagrad has no
momentum in the paper's experiments either.

Deviations: as in FedAdam, clients train with AdamW instead of SGD, like every method here; Delta is weighted by numbers
of examples where Algorithm 2 has a plain mean. eta = 0.01 and tau = 0.001, both from the paper's grid, suit updates
of about 0.001 to 0.01 per coordinate.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pilot.methods.server_optimiser import AdaptiveOptimiser


@dataclass(frozen=True, kw_only=True)
class FedAdagrad(AdaptiveOptimiser):
    """Adagrad on the server; `AdaptiveOptimiser` describes what Adam, Yogi and Adagrad have in common."""

    name: ClassVar[str] = "fedadagrad"

    beta1: float = 0.0

    def second_moment(self, v: Tensor, delta: Tensor) -> Tensor:
        """Return v + Delta^2."""
        return v + delta.square()
