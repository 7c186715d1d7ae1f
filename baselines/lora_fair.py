"""LoRA-FAIR. Bian et al., "LoRA-FAIR: Federated LoRA Fine-Tuning with Aggregation and Initialization Refinement",
ICCV 2025, arXiv 2411.14961.

Server, for every layer, with p_k = n_k / n:

    A = sum_k p_k A_k,   B = sum_k p_k B_k,   dW = sum_k p_k B_k A_k,
    dB = argmin (1 - cos(dW, (B + dB) A)) + strength ||dB||_F^2;   clients start from A and B + dB.

Objective `cosine` is solved by 1000 gradient steps of at most 0.01 from dB = 0. Variant `l2`, ours, has
||dW - (B + dB) A||_F^2 in place of the cosine, with the closed form dB = (dW - B A) A^T (A A^T + strength I)^-1.

Deviations: the paper's text could not be read beyond its abstract. Three public implementations agree on the squared
norm and on the number and size of steps; they differ in the strength (0.01 as in notes on the paper, or 1), in dB's
start and in whether the cosine is of flattened matrices, as here, or of columns. All take steps of 0.01, which diverge
where B is small, since the cosine's curvature grows as 1 / ||B A||^2. Here a step is at most

    1.5 / (lambda / ||(B + dB) A||_F^2 + 2 strength),   lambda the largest eigenvalue of A A^T,

where 3^1/2 in place of 1.5 is the most that cannot raise the objective to second order. The cosine does not see the
scale of (B + dB) A. Gradients are computed from (r, r) and (O, r) matrices; dW is never built. The connector, which the
paper's models lack, is averaged. A robust mean replaces the weighted one. AdamW instead of SGD on clients, like every
method.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pilot.methods.averaging import PLAIN_GROUPS, Averaging, mean_of_updates, mean_product_factors
from pilot.methods.base import Mean, Phase, ServerState, Update, sort_by_client, weighted_mean
from pilot.methods.lora_products import pair_of

STEPS, RATE, REACH = 1000, 0.01, 1.5
OBJECTIVES = ("cosine", "l2")


@dataclass(frozen=True, kw_only=True)
class LoraFair(Averaging):
    """Averaging whose server corrects B towards the mean product.

    Attributes:
        strength: weight of ||dB||^2, at least 0.
        objective: `cosine`, or `l2` for our variant.
    """

    name: ClassVar[str] = "lora_fair"
    mean_product: ClassVar[bool] = True

    strength: float = 0.01
    objective: str = "cosine"

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise ValueError(f"strength: expected a number of at least 0, got {self.strength}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {self.objective!r}")

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average, then correct B of every layer; record the mean cosine over layers before and after."""
        updates = sort_by_client(updates)
        shared = mean_of_updates(updates, PLAIN_GROUPS, mean)
        before, after = [], []
        for layer, left_OR, right_RI in mean_product_factors(updates, mean):
            a_RI, b_OR = pair_of(shared, layer)
            aim = _Aim(left_OR, right_RI, a_RI)
            solve = aim.towards_cosine if self.objective == "cosine" else aim.towards_product
            corrected_OR = solve(b_OR, self.strength)
            before.append(aim.cosine(b_OR))
            after.append(aim.cosine(corrected_OR))
            name = f"text_adapter.{layer}.lora_B"
            shared[name] = corrected_OR.to(shared[name].dtype)
        record = {"cosine_before": sum(before) / len(before), "cosine_after": sum(after) / len(after)}
        return ServerState(shared, {}, record)


class _Aim:
    """A layer's mean product dW = left right and the averaged A, by the inner products that the objectives need."""

    def __init__(self, left_OR: Tensor, right_RI: Tensor, a_RI: Tensor) -> None:
        self.cross_OR = left_OR @ (right_RI @ a_RI.T)  # dW A^T
        self.gram_RR = a_RI @ a_RI.T
        self.norm = float(((left_OR.T @ left_OR) * (right_RI @ right_RI.T)).sum().clamp(min=0).sqrt())

    def cosine(self, b_OR: Tensor) -> float:
        """Compute cos(dW, b A); 0 if one of the two is 0."""
        whole = self.norm * float((b_OR * (b_OR @ self.gram_RR)).sum().clamp(min=0).sqrt())
        return float((self.cross_OR * b_OR).sum()) / whole if whole > 0 else 0.0

    def towards_cosine(self, start_OR: Tensor, strength: float) -> Tensor:
        """Descend 1 - cos(dW, b A) + strength ||b - start||^2 from b = start, in steps that its curvature allows."""
        b_OR, widest = start_OR.clone(), float(torch.linalg.matrix_norm(self.gram_RR, ord=2))
        for _ in range(STEPS):
            turned_OR = b_OR @ self.gram_RR
            square = float((b_OR * turned_OR).sum())
            if not (square > 0 and self.norm > 0):
                return b_OR
            whole = self.norm * square**0.5
            along = float((self.cross_OR * b_OR).sum()) / (whole * square)
            rate = min(RATE, REACH / (widest / square + 2 * strength))
            b_OR -= rate * (along * turned_OR - self.cross_OR / whole + 2 * strength * (b_OR - start_OR))
        return b_OR

    def towards_product(self, start_OR: Tensor, strength: float) -> Tensor:
        """Minimise ||dW - b A||^2 + strength ||b - start||^2; the least change where A has a lower rank."""
        residual_OR = self.cross_OR - start_OR @ self.gram_RR
        regular_RR = self.gram_RR + strength * torch.eye(len(self.gram_RR), dtype=self.gram_RR.dtype)
        return start_OR + residual_OR @ torch.linalg.pinv(regular_RR, hermitian=True)
