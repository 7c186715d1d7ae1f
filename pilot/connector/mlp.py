"""LLaVA-1.5's projector: two linear layers with a GELU between them."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    """psi: R^D -> R^C, x = W_2 gelu(W_1 h + b_1) + b_2.

    The same layers, names and exact (not tanh) GELU as `LlavaMultiModalProjector` of transformers.
    Liu et al., "Improved Baselines with Visual Instruction Tuning", CVPR 2024.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width_in, width_out)
        self.linear_2 = nn.Linear(width_out, width_out)

    @property
    def width_in(self) -> int:
        """D, the width of a vision feature."""
        return self.linear_1.in_features

    @property
    def width_out(self) -> int:
        """C, the width of a token of the LLM."""
        return self.linear_2.out_features

    def forward(self, features_BND: Tensor) -> Tensor:
        """Vision features (B, N, D) to image tokens (B, N, C)."""
        tokens_BNC: Tensor = self.linear_2(functional.gelu(self.linear_1(features_BND)))
        return tokens_BNC

    def duplicate(self) -> "Mlp":
        """A trainable copy that shares no memory with this one."""
        return deepcopy(self).requires_grad_(True)


def apply_all(mlps: Sequence[Mlp], features_BND: Tensor) -> list[Tensor]:
    """Outputs (B, N, C) of MLPs of one shape on the same features, in order; their first layers are one product.

    Those that train and those that are frozen are computed apart, so that of the frozen ones nothing is held for the
    backward pass.
    """
    outputs: dict[int, Tensor] = {}
    for trains in (True, False):
        chosen = [i for i, mlp in enumerate(mlps) if any(p.requires_grad for p in mlp.parameters()) == trains]
        outputs |= zip(chosen, _together([mlps[i] for i in chosen], features_BND), strict=True)
    return [outputs[i] for i in range(len(mlps))]


def _together(mlps: Sequence[Mlp], features_BND: Tensor) -> list[Tensor]:
    if len(mlps) < 2:
        return [mlp(features_BND) for mlp in mlps]
    weight, bias = (torch.cat([getattr(mlp.linear_1, name) for mlp in mlps]) for name in ("weight", "bias"))
    hidden = functional.gelu(functional.linear(features_BND, weight, bias))
    parts = hidden.split(mlps[0].linear_1.out_features, dim=-1)
    return [mlp.linear_2(part_BNC) for mlp, part_BNC in zip(mlps, parts, strict=True)]


Projector = Mlp
"""The backbone's own projector, from which every adapter starts."""
