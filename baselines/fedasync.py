"""FedAsync. Xie, Koyejo and Gupta, "Asynchronous Federated Optimization", OPT 2020, arXiv 1903.03934.

The server takes every update as it arrives, the less the more the model has changed since the client started. With
t - tau the staleness (number of changes since):

    w <- (1 - a) w + a w_k,   a = alpha s(t - tau),   client: L_ce + (proximal / 2) ||w - w_received||^2

s is 1 (`constant`), (t - tau + 1)^-exponent (`polynomial`), or 1 up to a staleness of `delay` and beyond it
1 / (slope (t - tau - delay) + 1) (`hinge`).

Deviations: the authors simulate staleness by drawing the start from the last models; here it follows from a virtual
clock. They halve alpha once, at update 800 of 2000; runs here have about a hundred updates, and alpha is constant.
AdamW instead of SGD; the proximal term is off unless it is asked for. LoRA and the connector are mixed. Numbers of
examples play no part.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from pilot.methods.asynchronous import Asynchronous, mixed
from pilot.methods.base import State
from pilot.methods.penalties import squared_distance

STALENESS = ("constant", "polynomial", "hinge")


@dataclass(frozen=True, kw_only=True)
class FedAsync(Asynchronous):
    """FedAsync as described in the module's docstring.

    Attributes:
        alpha: weight of an update that is not stale, above 0 and at most 1.
        staleness: `constant`, `polynomial` or `hinge`.
        exponent: of `polynomial`, at least 0.
        slope: of `hinge`, above 0.
        delay: of `hinge`, at least 0.
        proximal: weight of the proximal term, at least 0.
    """

    name: ClassVar[str] = "fedasync"

    alpha: float = 0.6
    staleness: str = "polynomial"
    exponent: float = 0.5
    slope: float = 10.0
    delay: float = 4.0
    proximal: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha: expected a number above 0 and at most 1, got {self.alpha}")
        if self.staleness not in STALENESS:
            raise ValueError(f"staleness: expected one of {', '.join(STALENESS)}, got {self.staleness!r}")
        if not self.slope > 0:
            raise ValueError(f"slope: expected a number above 0, got {self.slope}")
        for name in ("exponent", "delay", "proximal"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected a number of at least 0, got {getattr(self, name)}")

    def penalty(self, trainable: State, received: State) -> Tensor | None:
        """Return the proximal term, if any."""
        return self.proximal / 2 * squared_distance(trainable, received) if self.proximal else None

    def take(self, shared: State, session: State, staleness: int) -> tuple[State, dict[str, Any]]:
        """Mix the update into the model."""
        weight = self.alpha * self.discount(staleness)
        return mixed(shared, session, weight), {"weight": weight}

    def discount(self, staleness: int) -> float:
        """Compute s."""
        if self.staleness == "polynomial":
            return float((staleness + 1) ** -self.exponent)
        if self.staleness == "hinge" and staleness > self.delay:
            return 1 / (self.slope * (staleness - self.delay) + 1)
        return 1.0
