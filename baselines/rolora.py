"""RoLoRA. Chen et al., "Robust Federated Finetuning of LLMs via Alternating Optimization of LoRA", 2025,
arXiv 2502.01755.

Odd rounds train, send and average B and leave A as it is; even rounds the other way round. With A common to all clients

    sum_k (n_k / n) B_k A = (sum_k (n_k / n) B_k) A:   the average is exact, as it is for A with B common.

Deviations: the connector, which the paper's text models lack, is trained and averaged in every round. AdamW is started
anew in every round, like for every method here, so that the frozen factor has neither momentum nor weight decay.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.alternating import Alternating


@dataclass(frozen=True, kw_only=True)
class RoLora(Alternating):
    """Averaging of B and A in turn, and of the connector in every round."""

    name: ClassVar[str] = "rolora"
    mean_product: ClassVar[bool] = True
