"""FFA-LoRA. Sun et al., "Improving LoRA in Privacy-preserving Federated Learning", ICLR 2024, arXiv 2403.12313.

A keeps the initial values that all clients draw from the run's seed; B is trained, sent and averaged:

    B = sum_k (n_k / n) B_k,   so that   B A = sum_k (n_k / n) B_k A:   the average is exact.

Deviations: the connector, which the paper's text models do not have, is trained and averaged like B. AdamW instead
of SGD, like every method here; A has the profile's initialisation (uniform), not one of those that the paper compares.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import Averaging
from pilot.methods.base import Phase
from pilot.methods.lora_products import B

TRAINED = frozenset({B, "connector"})


@dataclass(frozen=True, kw_only=True)
class FfaLora(Averaging):
    """Averaging of B and the connector."""

    name: ClassVar[str] = "ffa_lora"
    mean_product: ClassVar[bool] = True

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round, in which A is frozen."""
        return (Phase(name="train", trainable=TRAINED, shared=TRAINED),)
