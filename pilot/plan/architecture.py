"""Sizes of LLaVA architectures and the parameter counts that follow from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.backbone.paths import BACKBONES, MODELS_VARIABLE, CheckpointSource, models_folder
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.io.text import decode, parse_json

SIZES = {
    "text": {
        "text_layers": "num_hidden_layers", "text_hidden": "hidden_size", "text_intermediate": "intermediate_size",
        "text_heads": "num_attention_heads", "text_kv_heads": "num_key_value_heads", "vocabulary": "vocab_size",
    },
    "vision": {
        "vision_layers": "num_hidden_layers", "vision_hidden": "hidden_size",
        "vision_intermediate": "intermediate_size", "image_size": "image_size", "patch_size": "patch_size",
    },
}  # fmt: skip
"""Fields of an `Architecture`, and their names in the two parts of LLaVA's configuration."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A CLIP vision tower, a two-layer projector and a Llama; widths are those of transformers' configurations.

    The defaults are LLaVA-1.5-7B's (CLIP ViT-L/14 at 336 pixels, Vicuna-7B): constants of that architecture.
    """

    text_layers: int = 32
    text_hidden: int = 4096
    text_intermediate: int = 11008
    text_heads: int = 32
    text_kv_heads: int = 32
    vocabulary: int = 32064
    tied: bool = False
    vision_layers: int = 24
    vision_hidden: int = 1024
    vision_intermediate: int = 4096
    image_size: int = 336
    patch_size: int = 14

    @property
    def image_tokens(self) -> int:
        """N: patches of an image, which the LLM sees as tokens (without the class token)."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def kv_width(self) -> int:
        """Width of a token's keys."""
        return self.text_hidden // self.text_heads * self.text_kv_heads

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of the seven matrices of a layer of the LLM that carry LoRA: q, k, v, o, gate, up, down."""
        hidden, kv, inner = self.text_hidden, self.kv_width, self.text_intermediate
        return (
            (hidden, hidden), (hidden, kv), (hidden, kv), (hidden, hidden),
            (hidden, inner), (hidden, inner), (inner, hidden),
        )  # fmt: skip

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer of the LLM: seven matrices and two norms."""
        return sum(rows * columns for rows, columns in self.matrices) + 2 * self.text_hidden

    @property
    def language_parameters(self) -> int:
        """Parameters of the LLM without its head: layers, embeddings, last norm."""
        return self.text_layers * self.layer_parameters + (self.vocabulary + 1) * self.text_hidden

    @property
    def vision_parameters(self) -> int:
        """Parameters of the vision tower: embeddings, layers, first and last norm."""
        width, inner = self.vision_hidden, self.vision_intermediate
        layer = 4 * (width * width + width) + 4 * width + 2 * width * inner + inner + width
        embeddings = width + 3 * width * self.patch_size**2 + (self.image_tokens + 1) * width
        return self.vision_layers * layer + embeddings + 4 * width

    @property
    def projector_parameters(self) -> int:
        """Parameters of one connector MLP, D -> C -> C with biases."""
        return (self.vision_hidden + 1) * self.text_hidden + (self.text_hidden + 1) * self.text_hidden

    @property
    def parameters(self) -> int:
        """All parameters in the checkpoint."""
        head = 0 if self.tied else self.vocabulary * self.text_hidden
        return self.language_parameters + head + self.vision_parameters + self.projector_parameters

    @property
    def linear_parameters(self) -> int:
        """Parameters of all matrices of the LLM that carry LoRA."""
        return self.text_layers * sum(rows * columns for rows, columns in self.matrices)

    def lora_parameters(self, rank: int) -> int:
        """Count LoRA's parameters: r (in + out) per matrix (Hu et al. 2021, arXiv 2106.09685, section 4)."""
        return self.lora_a_parameters(rank) + self.lora_b_parameters(rank)

    def lora_a_parameters(self, rank: int) -> int:
        """Count the parameters of all A matrices: r in per matrix."""
        return self.text_layers * rank * sum(rows for rows, _ in self.matrices)

    def lora_b_parameters(self, rank: int) -> int:
        """Count the parameters of all B matrices: r out per matrix."""
        return self.text_layers * rank * sum(columns for _, columns in self.matrices)


def architecture_of(profile: Profile) -> Architecture:
    """Return the architecture of a profile's backbone; a checkpoint on disk needs only its configuration.

    Raises:
        UserError: the backbone's sizes are not known, or the folder has no LLaVA configuration.
    """
    source, named = BACKBONES.get(profile.backbone, CheckpointSource()), models_folder() / profile.backbone
    if profile.backbone_path is not None:
        return _read(Path(profile.backbone_path).expanduser(), f"profile {profile.name}: field backbone_path")
    if source.folder is not None:
        return _read(source.folder, f"profile {profile.name}: field backbone")
    if profile.architecture is not None:
        size = profile.architecture
        return Architecture(
            **{name: getattr(size, name) for name in Architecture.__dataclass_fields__ if name != "tied"}
        )
    if profile.backbone == "llava-1.5-7b":
        return _read(named, MODELS_VARIABLE) if named.is_dir() else Architecture()
    raise UserError(
        f"profile {profile.name}: field backbone: the sizes of {profile.backbone!r} are unknown. Expected "
        "tiny-llava, llava-1.5-7b or llava-random."
    )


def _read(folder: Path, where: str) -> Architecture:
    """Read the architecture from a checkpoint's configuration."""
    config = _configuration(folder / "config.json", where)
    sizes = {part: {field: config[f"{part}_config"][name] for field, name in SIZES[part].items()} for part in SIZES}
    return Architecture(tied=config["tie_word_embeddings"], **sizes["text"], **sizes["vision"])


def _configuration(path: Path, where: str) -> dict[str, Any]:
    """Read LLaVA's configuration; import transformers only to add sizes that published files leave out.

    Raises:
        UserError: the file cannot be read, or describes another kind of model.
    """
    try:
        written: dict[str, Any] = parse_json(decode(path.read_bytes()))
        if written["model_type"] != "llava":
            raise ValueError(f"model_type is {written['model_type']!r}")
        parts = [(written.get(f"{part}_config") or {}, {*names.values()}) for part, names in SIZES.items()]
        if "tie_word_embeddings" in written and all(names <= part.keys() for part, names in parts):
            return written
        from transformers import LlavaConfig

        resolved: dict[str, Any] = LlavaConfig.from_dict(written).to_dict()
        return resolved
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{where}: {path}: {type(error).__name__}: {error}. Expected the config.json of a LLaVA checkpoint "
            "(model_type llava), as transformers writes it."
        ) from error
