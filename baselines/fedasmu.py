"""FedASMU, server side, with fixed controls. Liu et al., "FedASMU: Efficient Asynchronous Federated Learning with
Dynamic Staleness-Aware Model Update", AAAI 2024, arXiv 2312.05770.

The server takes every update as it arrives. With t the model's version, counted from 1, and tau its staleness:

    xi = lambda_ / (sqrt(t) (tau + 1)^sigma) + iota,   a = mu xi / (1 + mu xi),   w <- (1 - a) w + a w_k

Deviations: the paper learns lambda, sigma and iota for every client from gradients, and lets clients mix a fresh model
into theirs halfway; here the three are constants for all, and clients train as usual. Of the paper only the abstract
could be read; the rule is that of three public implementations, which agree. No update is too old. LoRA and the
connector are mixed. AdamW instead of SGD.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from pilot.methods.asynchronous import Asynchronous, mixed, version_of
from pilot.methods.base import State


@dataclass(frozen=True, kw_only=True)
class FedAsmu(Asynchronous):
    """FedASMU as described in the module's docstring.

    Attributes:
        mu: above 0.
        lambda_: above 0.
        sigma: exponent of the staleness, at least 0.
        iota: at least 0.
    """

    name: ClassVar[str] = "fedasmu"

    mu: float = 1.0
    lambda_: float = 1.0
    sigma: float = 1.0
    iota: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("mu", self.mu), ("lambda_", self.lambda_)):
            if not value > 0:
                raise ValueError(f"{name}: expected a number above 0, got {value}")
        for name, value in (("sigma", self.sigma), ("iota", self.iota)):
            if not value >= 0:
                raise ValueError(f"{name}: expected a number of at least 0, got {value}")

    def take(self, shared: State, session: State, staleness: int) -> tuple[State, dict[str, Any]]:
        """Mix the update into the model."""
        weight = self.weight(version_of(shared) + 1, staleness)
        return mixed(shared, session, weight), {"weight": weight}

    def weight(self, version: float, staleness: int) -> float:
        """Compute a."""
        xi = self.lambda_ / (version**0.5 * (staleness + 1) ** self.sigma) + self.iota
        return float(self.mu * xi / (1 + self.mu * xi))
