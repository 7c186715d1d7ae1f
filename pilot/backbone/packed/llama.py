"""A training pass of a frozen Llama or Qwen2 with LoRA in weight space, over sequences without padding.

It computes the same function as transformers' `LlamaModel` with its layers replaced by `LoraLinear`, with little work
on a CPU besides the matrix products:

- Tokens of all sequences are concatenated, (T, C). Padding is left out, and so is everything after the last token that
  predicts something. The prefix, with which all sequences begin, is included once. Only attention sees sequences, as
  (B, L): it gathers keys and values by index, with a causal mask, so no sequence attends to another.
- The last layer computes queries, attention and feed-forward only for tokens that predict a label.
- W + s B A of all layers of one shape is one batched product. Keys and values are one product, gate and up another.
- RMSNorm, rotary embedding and SwiGLU have custom backward passes, which store less and call fewer kernels.

A test compares loss and gradients with those of transformers' module.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pilot.backbone.packed.attention import Attention, make_attention_indices
from pilot.backbone.packed.ops import RmsNorm, SwiGlu
from pilot.backbone.packed.packing import Packing
from pilot.backbone.packed.weights import StackedWeights


class PackedLlama:
    """The decoder layers of a `LlamaModel` whose linear layers were replaced by `LoraLinear`.

    Args:
        model: transformers' module; its parameters are used without copying, except the stacked frozen weights.

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
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.weights = StackedWeights(self.layers, width)

    def prediction_states(self, inputs_TC: Tensor, packing: Packing) -> Tensor:
        """Return the hidden states (M, C) after the last norm, at the tokens that predict the packing's targets."""
        weights, all_biases = self.weights.merged(), self.weights.biases
        rotations = self.rotations(inputs_TC, packing.length)
        every, queries = make_attention_indices(packing, self.num_heads, self.num_kv_heads, rotations)
        x_TC = inputs_TC
        for index, own in enumerate(weights):
            last = index == len(self.layers) - 1
            n_TC = RmsNorm.apply(x_TC, self.layers[index].input_layernorm.weight, self.epsilon)
            biases = all_biases[index]
            kv = functional.linear(n_TC, own["kv"], biases.get("kv"))
            if last:  # its output is used at the queries only
                n_TC, x_TC = n_TC[packing.query_M], x_TC[packing.query_M]
            q = functional.linear(n_TC, own["q"], biases.get("q"))
            mixed = Attention.apply(q, kv, queries if last else every)
            x_TC = self.after_attention(x_TC, mixed, index, own)
        out: Tensor = RmsNorm.apply(x_TC, self.norm_C, self.epsilon)
        return out

    def after_attention(self, x_TC: Tensor, mixed_TE: Tensor, index: int, own: Mapping[str, Tensor]) -> Tensor:
        """Return a layer's output (T, C) from its input, its heads' output (T, H D) and its updated weights."""
        x_TC = x_TC + functional.linear(mixed_TE, own["o"])
        n_TC = RmsNorm.apply(x_TC, self.layers[index].post_attention_layernorm.weight, self.epsilon)
        return x_TC + functional.linear(SwiGlu.apply(functional.linear(n_TC, own["gate_up"])), own["down"])

    def rotations(self, inputs_TC: Tensor, length: int) -> Tensor:
        """Return the complex numbers (L, D / 2) that rotate a query or key at each of the first `length` positions."""
        cos, sin = self._rotary(inputs_TC, torch.arange(length)[None])  # both halves of D are equal
        half = cos.shape[-1] // 2
        return torch.complex(cos[0, :, :half], sin[0, :, :half])


SUPPORTED: Mapping[str, Mapping[str, object]] = {
    "llama": {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    "qwen2": {"hidden_act": "silu", "use_sliding_window": False},
}
"""Values that an LLM's configuration must have for the packed passes, by `model_type`; others are left to transformers.

Llama here has no biases; Qwen2 has them in q, k and v.
"""


def supports(config: Any) -> bool:
    """Return whether the packed passes compute an LLM of this `text_config`."""
    return not _differences(config)


def _differences(config: Any) -> list[str]:
    """Return what of a `text_config` the packed passes do not compute."""
    kind = str(getattr(config, "model_type", None))
    if kind not in SUPPORTED:
        return [f"field model_type: expected one of {', '.join(SUPPORTED)}, got {kind!r}"]
    found = {name: getattr(config, name, None) for name in SUPPORTED[kind]}
    return [
        f"field {name}: this pass expects {value!r}, got {found[name]!r}"
        for name, value in SUPPORTED[kind].items()
        if found[name] != value
    ]


def _check(config: Any) -> None:
    for difference in _differences(config):
        raise ValueError(f"text_config: {difference}")
