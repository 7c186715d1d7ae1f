"""A backbone's language part read directly from its checkpoint, for processes that run only the packed passes.

Importing transformers' modelling code takes several times as long as loading a small checkpoint, and training on stored
features does not need it: parameters, tokenizer and projector are files in known formats. All parameters have the names
that transformers gives them, and tests hold both ways of loading equal. Where the vision tower is needed, transformers'
model is loaded on first use.
"""

from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn

from pilot.backbone.lora import TARGETS
from pilot.backbone.numerics import Numerics
from pilot.backbone.packed.llama import supports
from pilot.backbone.sources import WEIGHTS
from pilot.io.atomic import read_json

LANGUAGE, PROJECTOR = "language_model.model.", "multi_modal_projector."
EXPECTED = {
    ("model_type",): "llava",
    ("projector_hidden_act",): "gelu",
    ("tie_word_embeddings",): True,
    ("text_config", "rope_parameters", "rope_type"): "default",
}
"""Values that a checkpoint's config.json must have to be read here, besides `pilot.backbone.packed.llama.SUPPORTED`."""


def can_load_lean(folder: Path, numerics: Numerics) -> bool:
    """Return whether the packed passes are all that this checkpoint's language part needs on this device."""
    if not numerics.can_pack or not all((folder / name).is_file() for name in (WEIGHTS, "tokenizer.json")):
        return False
    config, tokens = read_json(folder / "config.json"), read_json(folder / "tokenizer_config.json")
    own = all(_at(config, path) == value for path, value in EXPECTED.items())
    own = own and supports(_namespace(config["text_config"]))
    own = own and all(isinstance(tokens.get(f"{name}_token"), str) for name in ("bos", "eos"))
    own = own and config.get("multimodal_projector_bias", True)
    return own and config.get("dtype") == "float32" and tokens.get("clean_up_tokenization_spaces") is False


class LeanCheckpoint:
    """A checkpoint like `pilot.backbone.checkpoint.Checkpoint`, with transformers' part loaded on first use."""

    def __init__(self, folder: Path, numerics: Numerics) -> None:
        self._folder, self._numerics = folder, numerics
        self.model: Any = LeanLlava(read_json(folder / "config.json"), folder / WEIGHTS)
        self.tokenizer: Any = LeanTokenizer(folder)

    @cached_property
    def _read(self) -> Any:
        from pilot.backbone.checkpoint import read_checkpoint

        return read_checkpoint(self._folder, self._numerics)

    @property
    def whole(self) -> Any:
        """The model as transformers loads it, with its vision tower."""
        return self._read.model

    @property
    def processor(self) -> Any:
        """Transformers' image processor."""
        return self._read.processor


class LeanLlava(nn.Module):
    """The parameters of a `LlavaForConditionalGeneration` without its vision tower."""

    def __init__(self, config: dict[str, Any], weights: Path) -> None:
        super().__init__()
        self.config = _namespace(config)
        with safe_open(weights, framework="pt") as file:
            own = {name: file.get_tensor(name) for name in file.keys() if name.startswith((LANGUAGE, PROJECTOR))}
        language = {name.removeprefix(LANGUAGE): own.pop(name) for name in list(own) if name.startswith(LANGUAGE)}
        self.model = nn.Module()
        self.model.language_model = LeanLlama(self.config.text_config, language)
        self.model.multi_modal_projector = projector = nn.Module()
        for layer in ("linear_1", "linear_2"):
            weight, bias = (own.pop(f"{PROJECTOR}{layer}.{name}") for name in ("weight", "bias"))
            setattr(projector, layer, _linear(weight, bias))
        if own:
            raise ValueError(f"{weights}: {sorted(own)[0]} is not a parameter of LLaVA's language part")
        self.lm_head = _linear(self.get_input_embeddings().weight)
        self.lm_head.weight = self.get_input_embeddings().weight  # one parameter, also for a method that trains it

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token embeddings, whose weights are also those of the head."""
        embeddings: nn.Embedding = self.model.language_model.embed_tokens  # type: ignore[union-attr, assignment]
        return embeddings


class LeanLlama(nn.Module):
    """The parameters of a `LlamaModel` under its names, without a forward pass.

    Args:
        config: `text_config`.
        state: every parameter, by name.

    Raises:
        ValueError: a parameter that Llama does not have.
    """

    def __init__(self, config: SimpleNamespace, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        state = dict(state)
        self.embed_tokens = nn.Embedding.from_pretrained(state.pop("embed_tokens.weight"))
        self.layers = nn.ModuleList(_layer(state, f"layers.{index}.") for index in range(config.num_hidden_layers))
        self.norm = _norm(state.pop("norm.weight"))
        self.rotary_emb = Rotary(config.head_dim, config.rope_parameters.rope_theta)
        if state:
            raise ValueError(f"{sorted(state)[0]} is not a parameter of Llama with {len(self.layers)} layers")


class Rotary(nn.Module):
    """Cosine and sine (1, L, D) of the angles at positions (1, L). Su et al. 2021, arXiv 2104.09864."""

    def __init__(self, width: int, theta: float) -> None:
        super().__init__()
        self.frequencies_D: Tensor = 1.0 / (theta ** (torch.arange(0, width, 2).float() / width))

    def forward(self, like: Tensor, places_1L: Tensor) -> tuple[Tensor, Tensor]:
        """Return what transformers' `LlamaRotaryEmbedding` returns: the same angles in both halves of D."""
        angles = (self.frequencies_D[None, :, None] @ places_1L[:, None, :].float()).transpose(1, 2)
        both = torch.cat([angles, angles], dim=-1)
        return both.cos().to(like.dtype), both.sin().to(like.dtype)


class LeanTokenizer:
    """The parts of transformers' fast tokenizer that prompts and answers need, over the same `tokenizers` library."""

    def __init__(self, folder: Path) -> None:
        config = read_json(folder / "tokenizer_config.json")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.bos_token_id, self.eos_token_id = (
            self._tokenizer.token_to_id(config[f"{name}_token"]) for name in ("bos", "eos")
        )

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        """Return the ids of a text."""
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def batch_decode(self, ids: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
        """Decode each list of ids."""
        return [str(self._tokenizer.decode(own, skip_special_tokens=skip_special_tokens)) for own in ids]


def _layer(state: dict[str, Tensor], prefix: str) -> nn.Module:
    """Build one decoder layer; remove the parameters that it uses from `state`."""
    layer = nn.Module()
    layer.self_attn, layer.mlp = nn.Module(), nn.Module()
    for name in TARGETS:
        part = "mlp" if name in ("gate_proj", "up_proj", "down_proj") else "self_attn"
        setattr(getattr(layer, part), name, _linear(state.pop(f"{prefix}{part}.{name}.weight")))
    for name in ("input_layernorm", "post_attention_layernorm"):
        setattr(layer, name, _norm(state.pop(f"{prefix}{name}.weight")))
    return layer


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def _norm(weight: Tensor) -> nn.Module:
    norm = nn.Module()
    norm.weight = nn.Parameter(weight, requires_grad=False)
    return norm


def _namespace(values: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**{k: _namespace(v) if isinstance(v, dict) else v for k, v in values.items()})


def _at(values: dict[str, Any], path: tuple[str, ...]) -> Any:
    for name in path:
        values = values.get(name, {}) if isinstance(values, dict) else {}
    return values
