"""W + s B A of all linear layers of an LLM, in one batched product per shape."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pilot.backbone.lora import LoraLinear

FUSED = {
    "q_proj": "q", "k_proj": "kv", "v_proj": "kv", "o_proj": "o", "gate_proj": "gate_up", "up_proj": "gate_up",
    "down_proj": "down",
}  # fmt: skip
"""The fused matrix of each linear layer: layers with the same input are stacked row-wise."""

ROTATED = ("q_proj", "k_proj")
"""Linear layers whose outputs get the rotary position embedding."""


class StackedWeights:
    """The linear layers of a `LlamaModel` after `pilot.backbone.lora.attach_lora`.

    Frozen weights are copied and stacked by shape; the adapter's parameters are not moved. If they are contiguous in
    memory, as `pilot.federation.optimisation.Optimiser` arranges them, their stack is a view. Within each head the rows
    of Q and K are ordered by pairs: rows d and d + D / 2, which are rotated together, are adjacent.

    Args:
        layers: decoder layers.
        head_width: D.

    Attributes:
        biases: of each layer, the biases of its fused matrices `q` and `kv`, rows in the same order; none in Llama.

    Frozen weights that receive gradients, since a method trains them, are stacked again for each product.
    """

    def __init__(self, layers: Sequence[nn.Module], head_width: int) -> None:
        self.num_layers = len(layers)
        places: dict[tuple[int, ...], list[tuple[int, str, str, LoraLinear]]] = {}
        for index, layer in enumerate(layers):
            modules = {name.rsplit(".", 1)[-1]: module for name, module in layer.named_modules()}
            for name, fused in FUSED.items():
                module = modules[name]
                assert isinstance(module, LoraLinear), "every target has a LoRA"
                places.setdefault(tuple(module.weight.shape), []).append((index, name, fused, module))
        self._stacks = [_Stack(of_shape, head_width) for of_shape in places.values()]
        self._layers, self._head_width = layers, head_width
        self._biases = self._read_biases()

    def _read_biases(self) -> list[dict[str, Tensor]]:
        return [_biases(layer, self._head_width) for layer in self._layers]

    @property
    def biases(self) -> list[dict[str, Tensor]]:
        """See the class."""
        return self._read_biases() if self._stacks[0].trained else self._biases

    def refresh(self) -> None:
        """Copy the frozen weights again after their modules have received others."""
        for stack in self._stacks:
            stack.refresh()
        self._biases = self._read_biases()

    def merged(self) -> list[dict[str, Tensor]]:
        """Return W + s B A of every layer, by the names of the fused matrices in `FUSED`: one (out, in) matrix each."""
        weights: list[dict[str, Tensor]] = [{} for _ in range(self.num_layers)]
        for stack in self._stacks:
            parts = MergeLora.apply(stack, stack.weights(), *stack.parameters())
            for (index, fused), weight in zip(stack.rows, parts, strict=True):
                weights[index][fused] = weight
        return weights


class MergeLora(torch.autograd.Function):
    """W + s B A of a stack's K layers, split into the fused matrices; takes W, the K matrices B, then all A."""

    @staticmethod
    def forward(ctx: Any, stack: "_Stack", weights_KOI: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        count = len(weights_KOI)
        b_KOR, a_KRI = _stacked(parameters[:count]), _stacked(parameters[count:])
        if stack.order is not None:
            b_KOR = b_KOR.flatten(0, 1).index_select(0, stack.order).view_as(b_KOR)
        ctx.save_for_backward(b_KOR, a_KRI)
        ctx.stack = stack
        merged_KOI = torch.baddbmm(weights_KOI, b_KOR, a_KRI, alpha=stack.scale)
        return merged_KOI.view(-1, merged_KOI.shape[2]).split(list(stack.rows.values()))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (b_KOR, a_KRI), stack = ctx.saved_tensors, ctx.stack
        weights_grad_KOI = torch.cat(grads).view_as(stack.frozen_KOI)
        if ctx.needs_input_grad[1]:
            if not any(ctx.needs_input_grad[2:]):
                return None, weights_grad_KOI, *[None] * (2 * len(b_KOR))
            grad_KOI = weights_grad_KOI * stack.scale
        else:
            grad_KOI = weights_grad_KOI.mul_(stack.scale)
        b_grad_KOR = torch.bmm(grad_KOI, a_KRI.transpose(1, 2))
        if stack.order is not None:
            b_grad_KOR = b_grad_KOR.flatten(0, 1).index_select(0, stack.inverse_order).view_as(b_KOR)
        a_grad_KRI = torch.bmm(b_KOR.transpose(1, 2), grad_KOI)
        own = weights_grad_KOI if ctx.needs_input_grad[1] else None
        return None, own, *b_grad_KOR.unbind(), *a_grad_KRI.unbind()


class _Stack:
    """Layers of one shape, in the order of `FUSED` within each decoder layer.

    Attributes:
        frozen_KOI: their frozen weights, rows in the order in which they are used.
        rows: number of rows of each fused matrix, by layer and name.
        order: order of the rows of all B, stacked; None if they are not reordered.
        inverse_order: inverse of `order`.
        scale: s.
    """

    def __init__(self, places: Sequence[tuple[int, str, str, LoraLinear]], head_width: int) -> None:
        self._modules = [module for _, _, _, module in places]
        self.scale = self._modules[0].scale
        self.rows: dict[tuple[int, str], int] = {}
        for index, _, fused, module in places:
            self.rows[index, fused] = self.rows.get((index, fused), 0) + len(module.weight)
        self._orders = [_order(module, name in ROTATED, head_width) for _, name, _, module in places]
        self.refresh()
        num_rows = self.frozen_KOI.shape[1]
        order = torch.cat([order_O + number * num_rows for number, order_O in enumerate(self._orders)])
        self.order = order if any(name in ROTATED for _, name, _, _ in places) else None
        self.inverse_order = order.argsort()

    def refresh(self) -> None:
        """Copy the frozen weights again; see `StackedWeights.refresh`."""
        with torch.no_grad():
            self.frozen_KOI: Tensor = self._stack_weights()

    @property
    def trained(self) -> bool:
        """Whether the weights receive gradients."""
        return self._modules[0].weight.requires_grad

    def weights(self) -> Tensor:
        """Return the weights (K, O, I): their copies, or while they are trained, themselves."""
        return self._stack_weights() if self.trained else self.frozen_KOI

    def _stack_weights(self) -> Tensor:
        own = zip(self._modules, self._orders, strict=True)
        return torch.stack([module.weight[order_O] for module, order_O in own])

    def parameters(self) -> Sequence[Tensor]:
        """Return all B, then all A."""
        return [module.lora_B for module in self._modules] + [module.lora_A for module in self._modules]


def _order(module: LoraLinear, rotated: bool, head_width: int) -> Tensor:
    """Return the order of a layer's rows: unchanged, or by pairs within each head."""
    rows_O = torch.arange(len(module.weight))
    return rows_O.view(-1, 2, head_width // 2).transpose(1, 2).flatten() if rotated else rows_O


def _biases(layer: nn.Module, head_width: int) -> dict[str, Tensor]:
    """Return the biases of a layer's fused matrices.

    Raises:
        ValueError: a bias of a matrix other than q, k and v.
    """
    parts: dict[str, list[Tensor]] = {}
    for name, module in layer.named_modules():
        own = name.rsplit(".", 1)[-1]
        if isinstance(module, LoraLinear) and module.bias is not None:
            if FUSED[own] not in ("q", "kv"):
                raise ValueError(f"{name}: this pass has biases in q, k and v only")
            parts.setdefault(FUSED[own], []).append(module.bias[_order(module, own in ROTATED, head_width)])
    return {fused: torch.cat(values) for fused, values in parts.items()}


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors of one shape; return a view if they are contiguous in memory."""
    first, size = tensors[0].detach(), tensors[0].nbytes
    start, storage = first.data_ptr(), first.untyped_storage().data_ptr()
    if all(
        tensor.data_ptr() == start + number * size and tensor.untyped_storage().data_ptr() == storage
        for number, tensor in enumerate(tensors)
    ):
        return first.as_strided((len(tensors), *first.shape), (first.numel(), *first.stride()))
    return torch.stack([tensor.detach() for tensor in tensors])
