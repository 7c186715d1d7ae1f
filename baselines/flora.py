"""FLoRA. Wang et al., "FLoRA: Federated Fine-Tuning Large Language Models with Heterogeneous Low-Rank Adaptations",
NeurIPS 2024, arXiv 2409.05976.

Every round clients start from a fresh LoRA (B zero) on a frozen weight W + s D. The product of their stacked factors is
the exact mean of the updates, which is added to D:

    D <- D + [p_1 B_1, ..., p_K B_K] [A_1; ...; A_K] = D + sum_k p_k B_k A_k,   p_k = n_k / n.

Deviations: the paper's server sends the stacked factors (rank sum_k r_k), and every client merges them. Here it sends
D, the sum over all rounds, so that a client that missed rounds needs no history of them. Where a layer is narrower
than that rank, as in the embedded profile, D is also smaller; in a 7B model the factors of nine clients would be
about a quarter of it. cost.csv counts what is sent here. All clients have the same rank. A restarts every round from
the same values, drawn from the run's seed. D is kept in float32. The connector, which the paper's models lack, is
averaged. AdamW instead of SGD, like every method here. After the last aggregation the model is D alone: its fresh LoRA
is zero. A robust mean replaces the weighted one for the products.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.offset_averaging import OffsetAveraging


@dataclass(frozen=True, kw_only=True)
class Flora(OffsetAveraging):
    """Averaging whose server keeps D and the connector, but no LoRA."""

    name: ClassVar[str] = "flora"
    averaged: ClassVar[frozenset[str]] = frozenset({"connector"})
