"""Offsets of the LLM's frozen linear layers, for methods that merge what clients learned into them.

With the offset D, a layer's weight is W + s (D + B A), where s is LoRA's scale: D has the scale of a product B A. It is
float32 in host memory, whatever the type of W. If W is float32, W + s D is formed when a client's model is loaded, not
in each step. A bfloat16 W would lose D to rounding (near 0.02 its steps are 1.2e-4), so the layer computes W x + s D x
instead, with D in W's type, which keeps eight significant bits of D and costs one more product per step.
"""

import torch
from torch import nn
from torch.nn import functional

from pilot.backbone.lora import GROUP as LORA
from pilot.backbone.lora import LoraLinear
from pilot.methods.lora_products import low_rank_factors

GROUP = "offset"


class Offsets:
    """Offsets of all `LoraLinear` layers of a language model, initially zero.

    Attributes:
        parameters: by name, `offset.<path of the layer>.weight`, each (out, in); change them in place, then `fold`.
    """

    def __init__(self, language_model: nn.Module) -> None:
        found = {name: layer for name, layer in language_model.named_modules() if isinstance(layer, LoraLinear)}
        self._layers = {f"{GROUP}.{name}.weight": layer for name, layer in found.items()}
        self._frozen: dict[str, nn.Parameter] = {name: layer.weight for name, layer in self._layers.items()}
        self.parameters = {
            name: nn.Parameter(torch.zeros(weight.shape), requires_grad=False) for name, weight in self._frozen.items()
        }

    @torch.no_grad()
    def reset(self) -> None:
        """Set all offsets to zero."""
        for parameter in self.parameters.values():
            parameter.zero_()

    @torch.no_grad()
    def singular_start(self) -> dict[str, torch.Tensor]:
        """Return LoRA with the largest singular values of each W, and the offsets that take it away, in host memory.

        With W ~ U S V^T of LoRA's rank: B = U S^1/2, A = S^1/2 V^T, D = -B A. Ranks beyond W's own are zero.
        """
        found: dict[str, torch.Tensor] = {}
        for name, layer in self._layers.items():
            w_OI, rank = self._frozen[name].detach().cpu(), len(layer.lora_A)
            a_KI, b_OK = low_rank_factors(w_OI, torch.eye(w_OI.shape[1]), rank)
            missing = rank - len(a_KI)
            a_RI = functional.pad(a_KI, (0, 0, 0, missing)).float()
            b_OR = functional.pad(b_OK, (0, missing)).float()
            path = name.removeprefix(f"{GROUP}.").removesuffix(".weight")
            found |= {f"{LORA}.{path}.lora_A": a_RI, f"{LORA}.{path}.lora_B": b_OR, name: -(b_OR @ a_RI)}
        return found

    @torch.no_grad()
    def fold(self) -> None:
        """Apply each offset D to its layer, in new tensors: existing autograd graphs keep the old ones."""
        for name, layer in self._layers.items():
            frozen, offset = self._frozen[name], self.parameters[name].detach()
            if not offset.any():
                layer.weight, layer.offset = frozen, None
            elif frozen.dtype == torch.float32:
                folded = torch.add(frozen, offset.to(frozen.device), alpha=layer.scale)
                layer.weight = nn.Parameter(folded, requires_grad=False)
            else:
                layer.offset = offset.to(frozen.device, frozen.dtype)
