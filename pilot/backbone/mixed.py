"""Computation of `pilot.methods.mixed_lora` in transformers' module: several LoRAs, weighted for each token."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from pilot.backbone.lora import GROUP, LoraLinear
from pilot.methods.mixed_lora import OTHERS, ROUTER, Mixture, mixed_state


class LayerMixture:
    """The other LoRAs of one layer and its router.

    Args:
        mixture: which LoRAs there are.
        parameters: of all layers, by name.
        layer: path of the layer.
    """

    def __init__(self, mixture: Mixture, parameters: Mapping[str, nn.Parameter], layer: str) -> None:
        self._top = mixture.top
        self._others = [
            (parameters[f"{OTHERS}.{j}.{layer}.lora_A"], parameters[f"{OTHERS}.{j}.{layer}.lora_B"])
            for j in mixture.others
        ]
        self._router = parameters[f"{ROUTER}.{layer}.weight"]
        chosen = torch.tensor(mixture.choices, device=self._router.device)
        self._lora_of_choice_CJ = functional.one_hot(chosen, len(mixture.others) + 1).float()

    def update(self, x: Tensor, lora_A: Tensor, lora_B: Tensor) -> Tensor:
        """Return sum_j g_j B_j A_j x of inputs (..., in)."""
        a_KI = torch.cat([lora_A, *(a for a, _ in self._others)])
        b_OK = torch.cat([lora_B, *(b for _, b in self._others)], dim=1)
        inner = functional.linear(x, a_KI).unflatten(-1, (len(self._others) + 1, -1))
        weighted = inner * self.weights(x)[..., None].to(inner.dtype)
        return functional.linear(weighted.flatten(-2), b_OK)

    def weights(self, x: Tensor) -> Tensor:
        """Return g (..., J), float32."""
        weights = functional.linear(x, self._router).float().softmax(dim=-1)
        if self._top is not None and self._top < weights.shape[-1]:
            kept = weights.topk(self._top, dim=-1)
            scaled = kept.values / kept.values.sum(dim=-1, keepdim=True)
            weights = torch.zeros_like(weights).scatter(-1, kept.indices, scaled)
        return weights @ self._lora_of_choice_CJ


class Mixtures:
    """The mixtures of all layers of an LLM whose linear layers are `LoraLinear`."""

    def __init__(self, language_model: nn.Module) -> None:
        found = language_model.named_modules()
        self._layers = {name: layer for name, layer in found if isinstance(layer, LoraLinear)}

    def attach(self, mixture: Mixture) -> dict[str, nn.Parameter]:
        """Mix LoRAs in all layers; return what this adds to the parameters, with initial values."""
        own: dict[str, Tensor] = {}
        for name, layer in self._layers.items():
            own[f"{GROUP}.{name}.lora_A"], own[f"{GROUP}.{name}.lora_B"] = layer.lora_A.detach(), layer.lora_B.detach()
        parameters = {name: nn.Parameter(value) for name, value in mixed_state(own, mixture).items()}
        for name, layer in self._layers.items():
            layer.mixture = LayerMixture(mixture, parameters, name)
        return parameters

    def detach(self) -> None:
        """Use each layer's own LoRA alone."""
        for layer in self._layers.values():
            layer.mixture = None
