"""FedAvg. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017.

Server: theta = sum_k (n_k / n) theta_k over LoRA and connector, n_k the client's number of examples.

Deviations: clients train with AdamW instead of SGD, like every method here; all clients take part in every
round. LoRA's A and B are averaged separately, so mean(B) mean(A) is not mean(B A).
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import Averaging


@dataclass(frozen=True, kw_only=True)
class FedAvg(Averaging):
    """Plain averaging, as defined in `Averaging`."""

    name: ClassVar[str] = "fedavg"
