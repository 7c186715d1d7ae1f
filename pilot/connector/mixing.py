"""Routers, and the weighted sum of experts without a tensor of all experts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ROUTER_STD = 0.02
"""Standard deviation of the weights of routers that start at small normal values."""


class Router(nn.Linear):
    """A linear layer without bias, (..., D) to logits (..., num_experts), with dtype and device of `like` (C, D).

    It starts at zero, and creating it draws no random numbers: a client's later draws do not depend on it.
    """

    def __init__(self, like: Tensor, num_experts: int) -> None:
        super().__init__(like.shape[1], num_experts, bias=False, device=like.device, dtype=like.dtype)

    def reset_parameters(self) -> None:
        """Set the weights to zero instead of `nn.Linear`'s random values."""
        nn.init.zeros_(self.weight)


def mix_experts(weights_BNT: Tensor, experts_BNC: Sequence[Tensor], rest_BNC: Tensor | None = None) -> Tensor:
    """Return x = sum_i P_i h_i (+ rest), (B, N, C), in the experts' type.

    Stacking the experts as (B, N, C, T) for one product costs two copies of all of them, in a layout that is slow for
    matrix products; here each is read once forward and once backward. The gradients are dL/dh_i = P_i g and
    dL/dP_i = <g, h_i>, where g = dL/dx.

    Args:
        weights_BNT: P, rounded to the experts' type.
        experts_BNC: T outputs h_i.
        rest_BNC: added unchanged.

    Raises:
        ValueError: there are not T experts.
    """
    if weights_BNT.shape[-1] != len(experts_BNC):
        raise ValueError(f"expected {weights_BNT.shape[-1]} experts, got {len(experts_BNC)}")
    mixed_BNC: Tensor = _Mixing.apply(weights_BNT.to(experts_BNC[0].dtype), rest_BNC, *experts_BNC)  # type: ignore[no-untyped-call]
    return mixed_BNC


class _Mixing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights_BNT: Tensor, rest_BNC: Tensor | None, *experts_BNC: Tensor) -> Tensor:
        ctx.save_for_backward(weights_BNT, *experts_BNC)
        first_BN1, *others_BN1 = weights_BNT.split(1, dim=-1)
        first_BNC, *others_BNC = experts_BNC
        mixed_BNC = first_BNC * first_BN1 if rest_BNC is None else rest_BNC.addcmul(first_BNC, first_BN1)
        for expert_BNC, weight_BN1 in zip(others_BNC, others_BN1, strict=True):
            mixed_BNC.addcmul_(expert_BNC, weight_BN1)
        return mixed_BNC

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_BNC: Tensor) -> tuple[Tensor | None, ...]:
        weights_BNT, *experts_BNC = ctx.saved_tensors
        of_weights, of_rest, *of_experts = ctx.needs_input_grad
        grads = [
            grad_BNC * weight_BN1 if needed else None
            for weight_BN1, needed in zip(weights_BNT.split(1, dim=-1), of_experts, strict=True)
        ]
        weights_grad_BNT = None
        if of_weights:
            weights_grad_BNT = torch.empty_like(weights_BNT)
            product_BNC = torch.empty_like(grad_BNC)  # one buffer for all experts
            for index, expert_BNC in enumerate(experts_BNC):
                torch.mul(grad_BNC, expert_BNC, out=product_BNC)
                torch.sum(product_BNC, dim=-1, out=weights_grad_BNT[..., index])
        return weights_grad_BNT, grad_BNC if of_rest else None, *grads
