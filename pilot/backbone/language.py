"""The LLM's own parameters, for a method that trains the whole LLM instead of a LoRA beside it.

They are those of the backbone itself: linear layers, their biases, norms, embeddings, and the head if it has weights of
its own. Training changes them in place, so the checkpoint's values are kept in host memory and restored before another
model is loaded.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

GROUP = "language"


class LanguageParameters:
    """Parameters `language.<path>` of an LLM without its LoRA, frozen until a method trains them.

    Args:
        language_model: the LLM without its head, in which linear layers may be `LoraLinear`.
        head: the head; its weights are left out if they are the embeddings.
        adapter: the LoRA's parameters, which are left out.
    """

    def __init__(self, language_model: nn.Module, head: nn.Module, adapter: Collection[nn.Parameter]) -> None:
        known = {id(parameter) for parameter in adapter}
        self._places: dict[str, tuple[nn.Module, str, nn.Parameter]] = {}
        for prefix, root in ((GROUP, language_model), (f"{GROUP}.lm_head", head)):
            for path, module in root.named_modules():
                for attribute, parameter in module.named_parameters(recurse=False):
                    if id(parameter) in known:
                        continue
                    known.add(id(parameter))
                    name = ".".join(part for part in (prefix, path, attribute) if part)
                    self._places[name] = module, attribute, parameter
        self._original: dict[str, Tensor] = {}

    @property
    def in_use(self) -> bool:
        """Whether `parameters` was called: some model may have changed them."""
        return bool(self._original)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters by name, to be changed in place; keep a copy of their values at the first call.

        Raises:
            ValueError: they are not float32; steps of training would be lost in rounding.
        """
        found = {name: parameter for name, (_, _, parameter) in self._places.items()}
        if wrong := [name for name, parameter in found.items() if parameter.dtype != torch.float32]:
            raise ValueError(f"{wrong[0]}: type {found[wrong[0]].dtype}, expected float32")
        if not self._original:
            self._original = {name: parameter.detach().to("cpu", copy=True) for name, parameter in found.items()}
        return found

    def initial(self) -> dict[str, Tensor]:
        """Return the checkpoint's values by name, in host memory; raises as `parameters` does."""
        self.parameters()
        return dict(self._original)

    def trained(self) -> list[nn.Parameter]:
        """Return those that receive gradients."""
        return [parameter for _, _, parameter in self._places.values() if parameter.requires_grad]

    @torch.no_grad()
    def reset(self) -> None:
        """Restore the checkpoint's values, without gradients, in the modules' own parameters."""
        for name, value in self._original.items():
            module, attribute, parameter = self._places[name]
            setattr(module, attribute, parameter.requires_grad_(False))
            parameter.grad = None
            parameter.copy_(value)
