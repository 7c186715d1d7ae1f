"""Computation of `pilot.methods.mixed_lora` in transformers' module: several LoRAs, weighted by token or question."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from pilot.backbone.lora import GROUP, LoraLinear
from pilot.methods.mixed_lora import OTHERS, QUESTION, ROUTER, Mixture, mixed_state


class LayerMixture:
    """The other LoRAs of one layer and its router, if it has one.

    Args:
        mixture: which LoRAs there are.
        parameters: of all layers, by name.
        layer: path of the layer.
        of_questions: returns the weights (B, choices) of the questions at hand, without routers.
    """

    def __init__(
        self, mixture: Mixture, parameters: Mapping[str, nn.Parameter], layer: str,
        of_questions: Callable[[], Tensor] | None = None,
    ) -> None:  # fmt: skip
        self._top, self._of_questions = mixture.top, of_questions
        self._others = [
            (parameters[f"{OTHERS}.{j}.{layer}.lora_A"], parameters[f"{OTHERS}.{j}.{layer}.lora_B"])
            for j in mixture.others
        ]
        self._router = parameters.get(f"{ROUTER}.{layer}.weight")
        chosen = torch.tensor(mixture.choices, device=next(iter(parameters.values())).device)
        self._lora_of_choice_CJ = functional.one_hot(chosen, len(mixture.others) + 1).float()

    def update(self, x: Tensor, lora_A: Tensor, lora_B: Tensor) -> Tensor:
        """Return sum_j g_j B_j A_j x of inputs (..., in)."""
        a_KI = torch.cat([lora_A, *(a for a, _ in self._others)])
        b_OK = torch.cat([lora_B, *(b for _, b in self._others)], dim=1)
        inner = functional.linear(x, a_KI).unflatten(-1, (len(self._others) + 1, -1))
        weighted = inner * self.weights(x)[..., None].to(inner.dtype)
        return functional.linear(weighted.flatten(-2), b_OK)

    def weights(self, x: Tensor) -> Tensor:
        """Return g (..., J), float32; by question, (B, 1, J)."""
        if self._router is None:
            assert self._of_questions is not None
            return (self._of_questions() @ self._lora_of_choice_CJ)[:, None]
        weights = functional.linear(x, self._router).float().softmax(dim=-1)
        if self._top is not None and self._top < weights.shape[-1]:
            kept = weights.topk(self._top, dim=-1)
            scaled = kept.values / kept.values.sum(dim=-1, keepdim=True)
            weights = torch.zeros_like(weights).scatter(-1, kept.indices, scaled)
        return weights @ self._lora_of_choice_CJ


class Mixtures:
    """The mixtures of all layers of an LLM whose linear layers are `LoraLinear`; `width` is the LLM's."""

    def __init__(self, language_model: nn.Module, width: int) -> None:
        found = language_model.named_modules()
        self._layers = {name: layer for name, layer in found if isinstance(layer, LoraLinear)}
        self._width, self._weights_BC = width, torch.empty(0)
        self._parameters: dict[str, nn.Parameter] = {}

    def attach(self, mixture: Mixture) -> dict[str, nn.Parameter]:
        """Mix LoRAs in all layers; return what this adds to the parameters, with initial values."""
        own: dict[str, Tensor] = {}
        for name, layer in self._layers.items():
            own[f"{GROUP}.{name}.lora_A"], own[f"{GROUP}.{name}.lora_B"] = layer.lora_A.detach(), layer.lora_B.detach()
        values = mixed_state(own, mixture, self._width)
        parameters = self._parameters = {name: nn.Parameter(value) for name, value in values.items()}
        for name, layer in self._layers.items():
            layer.mixture = LayerMixture(mixture, parameters, name, lambda: self._weights_BC)
        self._weigh = mixture.weigh
        self._references = {name: parameters[f"{QUESTION}.{name}"] for name in mixture.references}
        return parameters

    @torch.no_grad()
    def weigh(self, features_BD: Tensor) -> None:
        """Set the weights of the sequences that are computed next, without routers, by their questions' features."""
        assert self._weigh is not None, "routers weigh tokens"
        self._weights_BC = self._weigh(features_BD, self._references)

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that receive gradients."""
        return [parameter for parameter in self._parameters.values() if parameter.requires_grad]

    def detach(self) -> None:
        """Use each layer's own LoRA alone."""
        self._parameters = {}
        for layer in self._layers.values():
            layer.mixture = None
