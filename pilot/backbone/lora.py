"""LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1): W + s B A with s = alpha / r, in weight space or token space.

In weight space, W' = W + s B A is formed once per step, which is faster if tokens outnumber the rank and widths are
small; its backward pass needs the gradient of W', which is as large as W. In token space, W x + s B (A x) is computed
as PEFT does, without any tensor of the size of W; a 7B model on one GPU needs this. Both are mathematically equal.
`to_peft` returns the names under which PEFT loads the same adapter, and a test compares the logits of both.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pilot.errors import UserError
from pilot.io.seeding import seed_for
from pilot.methods.lora_products import TARGETS as TARGETS

GROUP = "text_adapter"


class Mixing(Protocol):
    """A mixture of a layer's LoRA with others; see `pilot.backbone.mixed`."""

    def update(self, x: Tensor, lora_A: Tensor, lora_B: Tensor) -> Tensor:
        """Return the weighted sum of all LoRAs' outputs for inputs (..., in), given the layer's own LoRA."""


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank update; `lora_A` (r, in), `lora_B` (out, r), float32 on W's device.

    Attributes:
        offset: D (out, in), in W's type, of W + s (D + B A); None without an offset, or if the weight includes s D.
        mixture: returns what several LoRAs add to W x, without s, in place of B A x; None for this LoRA alone.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, token_space: bool = False) -> None:
        super().__init__()
        self.weight: nn.Parameter = cast(nn.Parameter, base.weight)
        self.bias: nn.Parameter | None = cast(nn.Parameter | None, base.bias)
        self.scale: float = alpha / rank
        self.token_space: bool = token_space
        device = base.weight.device
        self.lora_A: nn.Parameter = nn.Parameter(torch.zeros(rank, base.in_features, device=device))
        self.lora_B: nn.Parameter = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        self.offset: Tensor | None = None
        self.mixture: Mixing | None = None
        self._merged: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mixture is not None:
            mixed = self.mixture.update(x, self.lora_A, self.lora_B)
            return torch.add(functional.linear(x, self.weight, self.bias), mixed, alpha=self.scale)
        update = functional.linear(functional.linear(x, self.lora_A), self.lora_B) if self.token_space else None
        if self.offset is not None:
            return self._add_offset(x, functional.linear(x, self.offset), update)
        if update is not None:
            return torch.add(functional.linear(x, self.weight, self.bias), update, alpha=self.scale)
        return functional.linear(x, self._effective_weight(), self.bias)

    def _effective_weight(self) -> Tensor:
        """Return the weight that multiplies x: W in token space, W + s B A in weight space."""
        if self.token_space:
            return self.weight
        return self._merged if self._merged is not None else self.merged_weight()

    def _add_offset(self, x: Tensor, offset: Tensor, update: Tensor | None) -> Tensor:
        """Add s D x to W x in one product: added after W x is rounded, less than half a rounding step would be lost."""
        total = offset if update is None else offset + update
        result_TO = torch.addmm(total.flatten(0, -2), x.flatten(0, -2), self._effective_weight().t(), beta=self.scale)
        result = result_TO.view(total.shape)
        return result if self.bias is None else result + self.bias

    def merged_weight(self) -> Tensor:
        """Return W + s B A, shape (out, in): computed in float32, rounded to W's type."""
        if self.weight.dtype == torch.float32:
            return torch.addmm(self.weight, self.lora_B, self.lora_A, alpha=self.scale)
        with torch.autocast(self.weight.device.type, enabled=False):
            weight = torch.addmm(self.weight.float(), self.lora_B, self.lora_A, alpha=self.scale)
        return weight.to(self.weight.dtype)


def attach_lora(
    language_model: nn.Module, rank: int, alpha: float, token_space: bool = False
) -> dict[str, nn.Parameter]:
    """Replace the attention and feed-forward layers by `LoraLinear`; return the adapter's parameters by name.

    Names are `text_adapter.<path of the layer>.lora_A|lora_B`.

    Raises:
        UserError: no layer has one of the expected names (a renamed architecture must not train nothing).
    """
    linear = {name: each for name, each in language_model.named_modules() if isinstance(each, nn.Linear)}
    layers = [(name, layer) for name, layer in linear.items() if name.rsplit(".", 1)[-1] in TARGETS]
    if not layers:
        found = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise UserError(
            f"backbone: no place for LoRA: expected linear layers named {', '.join(TARGETS)} in "
            f"{type(language_model).__name__}, found {', '.join(found) or 'none'}. Choose another checkpoint, "
            "or extend TARGETS in pilot/methods/lora_products.py."
        )
    parameters: dict[str, nn.Parameter] = {}
    for name, layer in layers:
        parent, _, child = name.rpartition(".")
        lora = LoraLinear(layer, rank, alpha, token_space)
        setattr(language_model.get_submodule(parent), child, lora)
        parameters[f"{GROUP}.{name}.lora_A"] = lora.lora_A
        parameters[f"{GROUP}.{name}.lora_B"] = lora.lora_B
    return parameters


def initial_lora_state(parameters: dict[str, nn.Parameter], seed: int) -> dict[str, Tensor]:
    """Return LoRA's initial values: A Kaiming-uniform from the run's seed (the same on every client), B zero."""
    state = {}
    for name, parameter in parameters.items():
        value = torch.zeros(parameter.shape)
        if name.endswith("lora_A"):
            source = torch.Generator().manual_seed(seed_for("lora", seed, name))
            bound = 1 / math.sqrt(parameter.shape[1])
            value = (torch.rand(parameter.shape, generator=source) * 2 - 1) * bound
        state[name] = value
    return state


@contextmanager
def merged_lora(language_model: nn.Module) -> Iterator[None]:
    """Form W + s B A once for every layer and use it within the context; for generation, without gradients.

    Layers in token space do not change, since it exists to avoid a second copy of every weight; nor do mixtures.
    """
    found = [module for module in language_model.modules() if isinstance(module, LoraLinear)]
    layers = [layer for layer in found if not layer.token_space and layer.mixture is None]
    try:
        with torch.no_grad():
            for layer in layers:
                layer._merged = layer.merged_weight()
        yield
    finally:
        for layer in layers:
            layer._merged = None


def to_peft(state: dict[str, Tensor], language: str = "model.language_model") -> dict[str, Tensor]:
    """Return the adapter under the names of a PEFT checkpoint; `language` is the LLM's path in transformers' model."""
    prefix = f"base_model.model.{language}."
    return {
        f"{prefix}{name.removeprefix(GROUP + '.')}.weight": value
        for name, value in state.items()
        if name.startswith(f"{GROUP}.")
    }
