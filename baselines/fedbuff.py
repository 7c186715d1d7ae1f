"""FedBuff. Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022, arXiv 2106.06639.

The server collects updates delta_k = w_k - w_start, each against the model that its client started from, and changes
the model when it has `buffer` of them. With tau the number of changes since the start:

    w <- w + (eta / buffer) sum_k (1 + tau_k)^-exponent delta_k

Deviations: Facebook's simulator FLSim does not divide by the buffer and scales the discount to 1 at a staleness of 1,
so that its server rate is another number for the same steps. The mean is taken over w + eta (1 + tau_k)^-exponent
delta_k, which is the same and, with equal speeds, a buffer of all clients and eta = 1, FedAvg with equal weights bit
for bit. Updates that are left in the buffer when the run ends are not used. LoRA and the connector are treated alike.
AdamW instead of SGD. The paper's secure aggregation and differential privacy are those of the profile.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pilot.methods.asynchronous import CLOCK, SENT, VERSION, Asynchronous
from pilot.methods.averaging import PLAIN_GROUPS
from pilot.methods.base import State, prefixed, select, unprefixed, without

BASE, BUFFER = "base", "buffer"
COUNT = f"{CLOCK}.buffered"


@dataclass(frozen=True, kw_only=True)
class FedBuff(Asynchronous):
    """FedBuff as described in the module's docstring.

    Attributes:
        buffer: updates per change of the model, at least 1.
        eta: the server's learning rate, above 0.
        exponent: of the discount, at least 0.
    """

    name: ClassVar[str] = "fedbuff"

    buffer: int = 3
    eta: float = 1.0
    exponent: float = 0.5

    def __post_init__(self) -> None:
        if self.buffer < 1:
            raise ValueError(f"buffer: expected at least 1, got {self.buffer}")
        if not self.eta > 0:
            raise ValueError(f"eta: expected a number above 0, got {self.eta}")
        if not self.exponent >= 0:
            raise ValueError(f"exponent: expected a number of at least 0, got {self.exponent}")

    def begun(self, sent: State, shared: State) -> State:
        """Keep the model that the client started from as well."""
        return {**super().begun(sent, shared), **prefixed(select(shared, PLAIN_GROUPS), BASE)}

    def take(self, shared: State, session: State, staleness: int) -> tuple[State, dict[str, Any]]:
        """Add the update to the buffer; change the model and empty the buffer if it is full."""
        weight = self.eta * (1 + staleness) ** -self.exponent
        model, sent, base = select(shared, PLAIN_GROUPS), unprefixed(session, SENT), unprefixed(session, BASE)
        sums, count = unprefixed(shared, BUFFER), 1 + int(shared.get(COUNT, torch.zeros(1)))
        for name, value in model.items():
            moved = value.double() + weight * (sent[name].double() - base[name].double())
            added = moved.to(value.dtype).double()
            sums[name] = sums[name] + added if name in sums else added
        rest = without(shared, {BUFFER})
        if count < self.buffer:
            buffered = {COUNT: torch.tensor([float(count)])}
            return {**rest, **prefixed(sums, BUFFER), **buffered}, {"weight": weight}
        changed = {name: (total / count).to(model[name].dtype) for name, total in sums.items()}
        version = {VERSION: shared[VERSION] + 1, COUNT: torch.zeros(1)}
        return {**rest, **changed, **version}, {"weight": weight, "changed": True}
