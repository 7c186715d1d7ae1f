"""FedIT. Zhang et al., "Towards Building the Federated GPT: Federated Instruction Tuning", ICASSP 2024,
arXiv 2305.05644.

Server: A = sum_k (n_k / n) A_k, B = sum_k (n_k / n) B_k over LoRA. The connector stays the backbone's projector:
neither trained nor sent.

Deviations: clients train with AdamW, all of them in every round, and the backbone sees images, where the paper tunes
a language model on text with some clients drawn per round. LoRA's A and B are averaged separately, as in the paper's
code, so mean(B) mean(A) is not mean(B A).
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import Averaging
from pilot.methods.base import Phase

LORA = frozenset({"text_adapter"})


@dataclass(frozen=True, kw_only=True)
class FedIT(Averaging):
    """Averaging of LoRA alone."""

    name: ClassVar[str] = "fedit"

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round on LoRA."""
        return (Phase(name="train", trainable=LORA, shared=LORA),)
