"""LoRA in weight space (Hu et al. 2021, arXiv 2106.09685, section 4.1): W + (alpha / r) B A, formed once per step.

The mathematics is PEFT's; only the order of the products differs (W' x instead of W x + B A x), which is what
makes it faster where tokens outnumber the rank. `to_peft` gives the names under which PEFT loads the same adapter,
and a test compares the logits of both.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from pilot.io.seeding import seed_for

GROUP = "text_adapter"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank update; `lora_A` (r, in), `lora_B` (out, r)."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        if base.bias is not None:
            raise ValueError("LoraLinear expects a layer without bias, as Llama's are")
        self.weight: nn.Parameter = base.weight
        self.scale: float = alpha / rank
        self.lora_A: nn.Parameter = nn.Parameter(torch.zeros(rank, base.in_features))
        self.lora_B: nn.Parameter = nn.Parameter(torch.zeros(base.out_features, rank))
        self._merged: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        weight = self._merged if self._merged is not None else self.updated_weight()
        return functional.linear(x, weight)

    def updated_weight(self) -> Tensor:
        """W + scale * B A, shape (out, in)."""
        return torch.addmm(self.weight, self.lora_B, self.lora_A, alpha=self.scale)


def attach(language_model: nn.Module, rank: int, alpha: float) -> dict[str, nn.Parameter]:
    """Replace the attention and feed-forward layers by `LoraLinear`; returns the adapter's parameters by name.

    Names are `text_adapter.<path of the layer>.lora_A|lora_B`.

    Raises:
        ValueError: no layer carries one of the expected names (a renamed architecture must not train nothing).
    """
    layers = [
        (name, module)
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in TARGETS
    ]
    if not layers:
        raise ValueError(f"no linear layer named {', '.join(TARGETS)} in {type(language_model).__name__}")
    parameters: dict[str, nn.Parameter] = {}
    for name, layer in layers:
        parent, _, child = name.rpartition(".")
        lora = LoraLinear(layer, rank, alpha)
        setattr(language_model.get_submodule(parent), child, lora)
        parameters[f"{GROUP}.{name}.lora_A"] = lora.lora_A
        parameters[f"{GROUP}.{name}.lora_B"] = lora.lora_B
    return parameters


def initial_state(parameters: dict[str, nn.Parameter], seed: int) -> dict[str, Tensor]:
    """LoRA's start for a run: A Kaiming-uniform from the run's seed (the same on every client), B zero."""
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
def merged(language_model: nn.Module) -> Iterator[None]:
    """Within the context every layer uses W + B A formed once; for generation, without gradients."""
    layers = [module for module in language_model.modules() if isinstance(module, LoraLinear)]
    try:
        with torch.no_grad():
            for layer in layers:
                layer._merged = layer.updated_weight()
        yield
    finally:
        for layer in layers:
            layer._merged = None


def to_peft(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The adapter under the names of a PEFT checkpoint over `LlavaForConditionalGeneration`."""
    prefix = "base_model.model.model.language_model."
    return {
        f"{prefix}{name.removeprefix(GROUP + '.')}.weight": value
        for name, value in state.items()
        if name.startswith(f"{GROUP}.")
    }
