"""LLaVA-1.5's projector: two linear layers with a GELU between them."""

from copy import deepcopy

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


Projector = Mlp
"""The backbone's own projector, from which every adapter starts."""
