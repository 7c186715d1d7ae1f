"""A training pass of a frozen Llama with LoRA in weight space, over sequences without padding.

The same function as transformers' `LlamaModel` with its layers replaced by `LoraLinear`, arranged so that a step on a
CPU does little besides the matrix products it needs:

- Tokens of all sequences stand one after the other, (T, C). Padding is left out, and so is everything after the last
  token that predicts something. What all sequences begin with (the lead) is there once. Only attention sees sequences,
  as (B, L): it gathers keys and values by index, with a causal mask, so no sequence sees another.
- The last layer computes queries, attention and feed-forward for labelled tokens only.
- W + s B A of all layers of one shape is one batched product. Keys and values are one product, gate and up another.
- RMSNorm, rotary embedding and SwiGLU have backward passes of their own, which keep less and call fewer kernels.

A test compares loss and gradients with those of transformers' own module.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pilot.backbone.packed.attention import Attention, make_heads
from pilot.backbone.packed.ops import RmsNorm, SwiGlu
from pilot.backbone.packed.packing import Packing
from pilot.backbone.packed.weights import Weights


class PackedLlama:
    """The decoder layers of a `LlamaModel` whose linear layers were replaced by `LoraLinear`.

    Args:
        model: transformers' module; its parameters are used, not copied, but for the stacked frozen weights.

    Raises:
        ValueError: an architecture that this pass does not compute.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        _check(config)
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.epsilon: float = config.rms_norm_eps
        self.layers = list(model.layers)
        self.norm_C: Tensor = model.norm.weight
        self._rotary: nn.Module = model.rotary_emb
        self.weights = Weights(self.layers, config.head_dim)

    def predictions(self, inputs_TC: Tensor, packing: Packing) -> Tensor:
        """Hidden states (M, C) after the last norm, at the tokens that predict the packing's targets."""
        weights = self.weights.updated()
        turn = self.turn(inputs_TC, packing.length)
        every, queries = make_heads(packing, self.num_heads, self.num_kv_heads, turn)
        x_TC = inputs_TC
        for index, own in enumerate(weights):
            last = index == len(self.layers) - 1
            n_TC = RmsNorm.apply(x_TC, self.layers[index].input_layernorm.weight, self.epsilon)
            kv = functional.linear(n_TC, own["kv"])
            if last:  # nothing reads what its other tokens would become
                n_TC, x_TC = n_TC[packing.query_M], x_TC[packing.query_M]
            mixed = Attention.apply(functional.linear(n_TC, own["q"]), kv, queries if last else every)
            x_TC = self.after_attention(x_TC, mixed, index, own)
        out: Tensor = RmsNorm.apply(x_TC, self.norm_C, self.epsilon)
        return out

    def after_attention(self, x_TC: Tensor, mixed_TE: Tensor, index: int, own: Mapping[str, Tensor]) -> Tensor:
        """A layer's output (T, C) from its input, what its heads mixed (T, H D), and its updated weights."""
        x_TC = x_TC + functional.linear(mixed_TE, own["o"])
        n_TC = RmsNorm.apply(x_TC, self.layers[index].post_attention_layernorm.weight, self.epsilon)
        return x_TC + functional.linear(SwiGlu.apply(functional.linear(n_TC, own["gate_up"])), own["down"])

    def turn(self, inputs_TC: Tensor, length: int) -> Tensor:
        """What turns a query or key at each of the first `length` places: complex numbers (L, D / 2)."""
        cos, sin = self._rotary(inputs_TC, torch.arange(length)[None])  # both halves of D are equal
        half = cos.shape[-1] // 2
        return torch.complex(cos[0, :, :half], sin[0, :, :half])


COMPUTED = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""What an LLM's configuration must say for the packed passes to compute it; others are left to transformers."""


def computes(config: Any) -> bool:
    """Whether the packed passes compute an LLM of this `text_config`."""
    return all(getattr(config, name, None) == value for name, value in COMPUTED.items())


def _check(config: Any) -> None:
    for name, value in COMPUTED.items():
        if getattr(config, name) != value:
            raise ValueError(f"text_config: field {name}: this pass expects {value!r}, got {getattr(config, name)!r}")
