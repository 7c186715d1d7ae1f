"""FedEx-LoRA. Singhal et al., "FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of Foundation
Models", 2024, arXiv 2410.09432.

Both factors are averaged as in FedAvg, and the residual is added to the frozen weight W + s D, so that the global model
is the exact mean of the clients' models. With p_k = n_k / n:

    A = sum_k p_k A_k,   B = sum_k p_k B_k,   D <- D + sum_k p_k B_k A_k - B A.

Deviations: a client receives D itself, the sum of all residuals, in float32 and at full rank, although factors of rank
(K + 1) r would be enough for a single round's residual: a client that missed rounds needs no history, and every byte of
D is counted. The connector, which the paper's models lack, is averaged. Weights are numbers of examples. AdamW instead
of SGD, like every method here. A robust mean replaces the weighted one for factors and for products.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.offset_averaging import OffsetAveraging


@dataclass(frozen=True, kw_only=True)
class FedExLora(OffsetAveraging):
    """Averaging whose server keeps A, B, the connector and D."""

    name: ClassVar[str] = "fedex_lora"
