"""FedSA-LoRA. Guo et al., "Selective Aggregation for Low-Rank Adaptation in Federated Learning", 2024,
arXiv 2410.01463.

Both factors are trained; A leaves the client and is averaged, B stays:

    A = sum_k (n_k / n) A_k,   client k's update is B_k A.

Deviations: the connector, which the paper's models do not have, is averaged like A. AdamW instead of SGD, like every
method here. A client that has not trained yet is evaluated with B at zero.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import Averaging
from pilot.methods.base import Phase
from pilot.methods.lora_products import A, B


@dataclass(frozen=True, kw_only=True)
class FedSaLora(Averaging):
    """Averaging of A and the connector; the default `split_result` keeps B on the client."""

    name: ClassVar[str] = "fedsa_lora"
    single_model: ClassVar[bool] = False

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round, after which A and the connector leave."""
        return (Phase(name="train", trainable=frozenset({A, B, "connector"}), shared=frozenset({A, "connector"})),)
