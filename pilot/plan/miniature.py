"""A miniature of what clients train, whose sizes identify those of the full model.

It has one layer of the LLM, LoRA of the full rank, and a projector. Every width is a number that occurs nowhere else,
above the rank and the number of clients, so that a tensor's shape tells its full size, whatever its name. The LLM's
width has one value in the LLM's layers and another one in the connector: what has widths of the layers, or a layer in
its name, exists once per layer. As in the full model, the MLP is a layer's widest part.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pilot.backbone.lora import TARGETS, initial_lora_state
from pilot.connector.projector import Projector
from pilot.errors import UserError
from pilot.methods.base import State
from pilot.plan.architecture import Architecture

MIN_WIDTH = 65
"""Above the sizes of what does not grow with the model: tasks, experts, masks."""


class Miniature:
    """One layer's LoRA and offsets, and a projector, in place of an architecture's.

    Attributes:
        architecture, rank: of the full model.
        text_adapter: LoRA's initial values.
        offsets: the layer's offsets, which are zero.
        language: the LLM's own parameters: the layer's, the last norm, embeddings, and a head that is not tied to them.
        projector: the projector.
        width: the LLM's, outside its layers.
    """

    def __init__(self, architecture: Architecture, rank: int, num_clients: int) -> None:
        self.architecture, self.rank = architecture, rank
        self._min_width = max(MIN_WIDTH, rank + 1, num_clients + 1)
        layer = Architecture(
            text_hidden=2 * self._min_width, text_heads=2, text_kv_heads=1, text_intermediate=2 * self._min_width + 1
        )
        vision, out = self._min_width + 2, self._min_width + 3
        self.width = out
        self._widths_of_layers = {
            layer.text_hidden: architecture.text_hidden,
            layer.kv_width: architecture.kv_width,
            layer.text_intermediate: architecture.text_intermediate,
        }
        words = self._min_width + 4
        self._widths = self._widths_of_layers | {
            vision: architecture.feature_width, out: architecture.text_hidden, words: architecture.vocabulary,
        }  # fmt: skip
        pairs: dict[str, torch.nn.Parameter] = {}
        self.offsets: State = {}
        self.language: State = {"language.embed_tokens.weight": torch.zeros(words, out)}
        if not architecture.tied:
            self.language["language.lm_head.weight"] = torch.zeros(words, out)
        self.language["language.norm.weight"] = torch.zeros(out)
        for name in ("input_layernorm", "post_attention_layernorm"):
            self.language[f"language.layers.0.{name}.weight"] = torch.zeros(layer.text_hidden)
        for index, (target, (rows, columns)) in enumerate(zip(TARGETS, layer.matrices, strict=True)):
            path = f"layers.0.{'self_attn' if index < 4 else 'mlp'}.{target}"
            pairs[f"text_adapter.{path}.lora_A"] = torch.nn.Parameter(torch.empty(rank, rows))
            pairs[f"text_adapter.{path}.lora_B"] = torch.nn.Parameter(torch.empty(columns, rank))
            self.offsets[f"offset.{path}.weight"] = torch.zeros(columns, rows)
            self.language[f"language.{path}.weight"] = torch.zeros(columns, rows)
            if architecture.text_biases and target in ("q_proj", "k_proj", "v_proj"):
                self.language[f"language.{path}.bias"] = torch.zeros(columns)
        self.text_adapter = initial_lora_state(pairs, 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            widths = {architecture.feature_width: vision, architecture.text_hidden: out}
            inner = [columns for _, columns in architecture.connector or ()][:-1]
            hidden = [widths[width] for width in inner] if architecture.connector else None
            self.projector = Projector(vision, out, hidden=hidden, bias=architecture.connector_bias)

    def count(self, state: Mapping[str, Tensor]) -> int:
        """Count the numbers that the tensors would have in the full model.

        Raises:
            UserError: a tensor has a size of which no full size is known.
        """
        return sum(copies * math.prod(shape) for copies, shape in map(self._full_shape, state.items()))

    def full(self, state: Mapping[str, Tensor]) -> State:
        """Return the state of all layers at full size on the meta device, without values; single numbers keep theirs.

        Raises:
            UserError: see `count`.
        """
        result = {}
        for name, value in state.items():
            copies, shape = self._full_shape((name, value))
            if not any(size in self._widths for size in value.shape):
                result[name] = value
                continue
            for layer in range(copies):
                own = name.replace("layers.0.", f"layers.{layer}.")
                result[own] = torch.empty(shape, dtype=value.dtype, device="meta")
        return result

    def _full_shape(self, item: tuple[str, Tensor]) -> tuple[int, tuple[int, ...]]:
        """Return in how many layers a tensor exists, and its full shape."""
        name, value = item
        unknown = [size for size in value.shape if size >= self._min_width and size not in self._widths]
        if unknown:
            raise UserError(
                f"{name}: cannot be planned: size {unknown[0]} of its shape {tuple(value.shape)} is none of the widths "
                f"{', '.join(map(str, self._widths))} of the dry run's model. Keep and send parameters in their "
                "original shapes."
            )
        in_layer = "layers.0." in name or any(size in self._widths_of_layers for size in value.shape)
        return self.architecture.text_layers if in_layer else 1, tuple(
            self._widths.get(size, size) for size in value.shape
        )
