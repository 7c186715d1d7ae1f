"""Offsets of the LLM's frozen linear layers, for methods that merge what clients learned into them.

With D the offset of a layer, its weight is W + s (D + B A), s the LoRA's scale: D has the scale of a product B A. It is
float32 in the host's memory, whatever type W has. Where W is float32, W + s D is formed when a client's model is
loaded, not in each step. A bfloat16 W would round D away (beside 0.02 it has steps of 1.2e-4), so there the layer
computes W x + s D x, with D in W's type: rounded to eight bits of its own size, at one more product in each step.
"""

import torch
from torch import Tensor, nn

from pilot.backbone.lora import LoraLinear

GROUP = "offset"


class Offsets:
    """Offsets of all `LoraLinear` of a language model, zero at first.

    Attributes:
        parameters: by name, `offset.<path of the layer>.weight`, each (out, in); change them in place, then `fold`.
    """

    def __init__(self, language_model: nn.Module) -> None:
        found = {name: layer for name, layer in language_model.named_modules() if isinstance(layer, LoraLinear)}
        self._layers = {f"{GROUP}.{name}.weight": layer for name, layer in found.items()}
        self._frozen: dict[str, Tensor] = {name: layer.weight for name, layer in self._layers.items()}
        self.parameters = {
            name: nn.Parameter(torch.zeros(weight.shape), requires_grad=False) for name, weight in self._frozen.items()
        }

    @torch.no_grad()
    def reset(self) -> None:
        """All offsets to zero."""
        for parameter in self.parameters.values():
            parameter.zero_()

    @torch.no_grad()
    def fold(self) -> None:
        """Give every layer its D, in new tensors: graphs that hold the old ones stay as they are."""
        for name, layer in self._layers.items():
            frozen, offset = self._frozen[name], self.parameters[name].detach()
            if frozen.dtype == torch.float32:
                folded = torch.add(frozen, offset.to(frozen.device), alpha=layer.scale)
                layer.weight = nn.Parameter(folded, requires_grad=False)
            else:
                layer.offset = offset.to(frozen.device, frozen.dtype) if offset.any() else None
