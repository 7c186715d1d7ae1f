"""W + s B A of all linear layers of an LLM, those of one shape in one batched product."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pilot.backbone.lora import LoraLinear

FUSED = {
    "q_proj": "q", "k_proj": "kv", "v_proj": "kv", "o_proj": "o", "gate_proj": "gate_up", "up_proj": "gate_up",
    "down_proj": "down",
}  # fmt: skip
"""Linear layers with the same inputs are one matrix, one below the other."""


class Weights:
    """The linear layers of a `LlamaModel` after `pilot.backbone.lora.attach`.

    Frozen weights are copied, stacked by shape; the adapter's parameters stay where they are. Where they lie one after
    the other, as `pilot.federation.optimisation.Optimiser` puts them, their stack is a view.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.num_layers = len(layers)
        places: dict[tuple[int, ...], list[tuple[int, str, LoraLinear]]] = {}
        for index, layer in enumerate(layers):
            modules = {name.rsplit(".", 1)[-1]: module for name, module in layer.named_modules()}
            for name, fused in FUSED.items():
                module = modules[name]
                assert isinstance(module, LoraLinear), "every target has a LoRA"
                places.setdefault(tuple(module.weight.shape), []).append((index, fused, module))
        self._stacks = [_Stack(of_shape) for of_shape in places.values()]

    def updated(self) -> list[dict[str, Tensor]]:
        """W + s B A of every layer, by the names of `FUSED`: one (out, in) matrix each."""
        weights: list[dict[str, Tensor]] = [{} for _ in range(self.num_layers)]
        for stack in self._stacks:
            parts = Update.apply(stack.frozen_KOI, stack.scale, list(stack.rows.values()), *stack.parameters())
            for (index, fused), weight in zip(stack.rows, parts, strict=True):
                weights[index][fused] = weight
        return weights


class Update(torch.autograd.Function):
    """W + s B A of K layers of one shape, (K, out, in), in parts of some rows each; W is frozen.

    Takes W, s, the rows of each part, the K matrices B and the K matrices A.
    """

    @staticmethod
    def forward(ctx: Any, frozen_KOI: Tensor, scale: float, rows: list[int], *parameters: Tensor) -> tuple[Tensor, ...]:
        count = len(frozen_KOI)
        b_KOR, a_KRI = _stacked(parameters[:count]), _stacked(parameters[count:])
        ctx.save_for_backward(b_KOR, a_KRI)
        ctx.scale = scale
        updated_KOI = torch.baddbmm(frozen_KOI, b_KOR, a_KRI, alpha=scale)
        return updated_KOI.view(-1, frozen_KOI.shape[2]).split(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        b_KOR, a_KRI = ctx.saved_tensors
        grad_KOI = torch.cat(grads).view(*b_KOR.shape[:2], a_KRI.shape[2]).mul_(ctx.scale)
        b_grad_KOR = torch.bmm(grad_KOI, a_KRI.transpose(1, 2))
        a_grad_KRI = torch.bmm(b_KOR.transpose(1, 2), grad_KOI)
        return None, None, None, *b_grad_KOR.unbind(), *a_grad_KRI.unbind()


class _Stack:
    """Layers of one shape, in the order of `FUSED` within each decoder layer."""

    def __init__(self, places: Sequence[tuple[int, str, LoraLinear]]) -> None:
        self._modules = [module for _, _, module in places]
        self.scale = self._modules[0].scale
        self.frozen_KOI = torch.stack([module.weight.detach() for module in self._modules])
        self.rows: dict[tuple[int, str], int] = {}
        for index, fused, module in places:
            self.rows[index, fused] = self.rows.get((index, fused), 0) + len(module.weight)

    def parameters(self) -> Sequence[Tensor]:
        """All B, then all A."""
        return [module.lora_B for module in self._modules] + [module.lora_A for module in self._modules]


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape as one; a view where they lie one after the other."""
    first, size = tensors[0].detach(), tensors[0].nbytes
    start, storage = first.data_ptr(), first.untyped_storage().data_ptr()
    if all(
        tensor.data_ptr() == start + number * size and tensor.untyped_storage().data_ptr() == storage
        for number, tensor in enumerate(tensors)
    ):
        return first.as_strided((len(tensors), *first.shape), (first.numel(), *first.stride()))
    return torch.stack([tensor.detach() for tensor in tensors])
