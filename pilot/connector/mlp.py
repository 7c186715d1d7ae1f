"""LLaVA-1.5's projector: two linear layers with a GELU between them."""

from torch import Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    """psi: R^D -> R^C, x = W_2 gelu(W_1 h + b_1) + b_2.

    It has the layers, names and exact (not tanh) GELU of `LlavaMultiModalProjector` of transformers.
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
        """Map vision features (B, N, D) to image tokens (B, N, C)."""
        tokens_BNC: Tensor = self.linear_2(functional.gelu(self.linear_1(features_BND)))
        return tokens_BNC

    def duplicate(self) -> "Mlp":
        """Return a trainable copy that shares no memory with this one; a client's connector makes many per phase."""
        copy = Mlp.__new__(Mlp)
        nn.Module.__init__(copy)
        copy.linear_1, copy.linear_2 = _duplicate(self.linear_1), _duplicate(self.linear_2)
        return copy


def _duplicate(layer: nn.Linear) -> nn.Linear:
    """Copy a layer in half the time of `deepcopy`, without drawing initial values."""
    copy = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(copy)
    copy.in_features, copy.out_features = layer.in_features, layer.out_features
    copy.weight, copy.bias = (nn.Parameter(value.detach().clone()) for value in (layer.weight, layer.bias))
    return copy


Projector = Mlp
"""The backbone's projector, from which every adapter starts."""
