"""RMSNorm and SwiGLU over packed tokens; their backward passes store less and call fewer kernels than autograd's."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class RmsNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + epsilon) * w for the rows of x (T, C), with w (C,). Zhang and Sennrich 2019."""

    @staticmethod
    def forward(ctx: Any, x_TC: Tensor, weight_C: Tensor, epsilon: float) -> Tensor:
        scale_T1 = torch.linalg.vecdot(x_TC, x_TC).div_(x_TC.shape[1]).add_(epsilon).rsqrt_()[:, None]
        ctx.save_for_backward(x_TC, scale_T1, weight_C)
        return (x_TC * scale_T1).mul_(weight_C)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x_TC, scale_T1, weight_C = ctx.saved_tensors
        own_C = (grads[0] * x_TC).mul_(scale_T1).sum(dim=0) if ctx.needs_input_grad[1] else None
        grad_TC = grads[0] * weight_C
        along_T1 = torch.linalg.vecdot(grad_TC, x_TC)[:, None].mul_(scale_T1.pow(3)).div_(-x_TC.shape[1])
        return grad_TC.mul_(scale_T1).addcmul_(x_TC, along_T1), own_C, None


class SwiGlu(torch.autograd.Function):
    """silu(g) * u of (T, 2 F), where g is the first half. Shazeer 2020, arXiv 2002.05202."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        opened = functional.silu(gate)
        ctx.save_for_backward(x, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x, opened = ctx.saved_tensors
        gate, up = x.chunk(2, dim=-1)
        out = torch.empty_like(x)
        half = gate.shape[-1]
        torch.mul(grads[0], opened, out=out[:, half:])
        torch.ops.aten.silu_backward.grad_input(grads[0] * up, gate, grad_input=out[:, :half])
        return out
