"""The connector of a backbone, from which every adapter starts: linear layers with an activation between them."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
    "linear": lambda x: x,
}
"""Activations by their names in checkpoints' configurations; GELU is the exact one, not tanh's approximation."""


class Projector(nn.Module):
    """psi: R^D -> R^C, for two layers x = W_2 act(W_1 h + b_1) + b_2.

    With two layers and GELU it has the layers and names of LLaVA-1.5's projector (Liu et al., "Improved Baselines with
    Visual Instruction Tuning", CVPR 2024). SmolVLM has one layer without bias.

    Args:
        width_in: D.
        width_out: C.
        hidden: widths between the layers; C by default, as LLaVA-1.5's.
        bias: whether the layers have biases.
        activation: name of the activation between layers, one of `ACTIVATIONS`.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        hidden: Sequence[int] | None = None,
        bias: bool = True,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        widths = [width_in, *([width_out] if hidden is None else hidden), width_out]
        for number, (before, after) in enumerate(itertools.pairwise(widths), start=1):
            self.add_module(f"linear_{number}", nn.Linear(before, after, bias=bias))
        self.activation = activation

    @classmethod
    def of_layers(cls, layers: Sequence[nn.Linear], activation: str) -> "Projector":
        """Return a float32 copy of linear layers, first to last, in host memory.

        Raises:
            ValueError: an activation that is not one of `ACTIVATIONS`.
        """
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        copy = cls.__new__(cls)
        nn.Module.__init__(copy)
        for number, layer in enumerate(layers, start=1):
            copy.add_module(f"linear_{number}", _duplicate(layer).to("cpu", torch.float32))
        copy.activation = activation
        return copy

    @property
    def layers(self) -> list[nn.Linear]:
        """The linear layers, first to last."""
        return list(self.children())  # type: ignore[arg-type]

    @property
    def width_in(self) -> int:
        """D, the width of a vision feature."""
        return self.layers[0].in_features

    @property
    def width_out(self) -> int:
        """C, the width of a token of the LLM."""
        return self.layers[-1].out_features

    def forward(self, features_BND: Tensor) -> Tensor:
        """Map vision features (B, N, D) to image tokens (B, N, C)."""
        first, *others = self._modules.values()
        tokens_BNC: Tensor = first(features_BND)  # type: ignore[misc]
        for layer in others:
            tokens_BNC = layer(ACTIVATIONS[self.activation](tokens_BNC))  # type: ignore[misc]
        return tokens_BNC

    def duplicate(self) -> "Projector":
        """Return a trainable copy that shares no memory with this one; a client's connector makes many per phase."""
        copy = Projector.__new__(Projector)
        nn.Module.__init__(copy)
        for name, layer in self.named_children():
            copy.add_module(name, _duplicate(layer))  # type: ignore[arg-type]
        copy.activation = self.activation
        return copy


def _duplicate(layer: nn.Linear) -> nn.Linear:
    """Copy a layer in half the time of `deepcopy`, without drawing initial values."""
    copy = nn.Linear.__new__(nn.Linear)
    nn.Module.__init__(copy)
    copy.in_features, copy.out_features = layer.in_features, layer.out_features
    copy.weight = nn.Parameter(layer.weight.detach().clone())
    copy.register_parameter("bias", None if layer.bias is None else nn.Parameter(layer.bias.detach().clone()))
    return copy
