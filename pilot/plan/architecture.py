"""Sizes of multimodal LLMs and the parameter counts that follow from them.

LLaVA's sizes are read from its configuration alone; those of other families from a model that transformers creates from
the configuration on PyTorch's meta device, without memory for its weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.backbone.families.fields import read_field
from pilot.backbone.families.table import family_of
from pilot.backbone.numerics import Numerics
from pilot.backbone.published import PUBLISHED
from pilot.backbone.sources import MODELS_VARIABLE, models_folder, source_of
from pilot.config.model import RandomModel
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.io.atomic import expand_home
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
    """A vision tower, a connector and an LLM with Llama's layers; widths are those of transformers' configurations.

    The defaults are LLaVA-1.5-7B's (CLIP ViT-L/14 at 336 pixels, Vicuna-7B): constants of that architecture.

    Attributes:
        text_biases: whether q, k and v have biases, as Qwen2's.
        features: (N, D) of an image's features; by default the patches and the width of the vision tower.
        connector: (in, out) of the connector's linear layers; by default LLaVA's two, D -> C -> C.
        connector_bias: whether they have biases.
        tower: parameters of the vision tower, with fixed layers before the connector; counted from CLIP's by default.
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
    text_biases: bool = False
    features: tuple[int, int] | None = None
    connector: tuple[tuple[int, int], ...] | None = None
    connector_bias: bool = True
    tower: int | None = None

    @property
    def image_tokens(self) -> int:
        """N: features of an image, which the LLM sees as tokens (of LLaVA's patches without the class token)."""
        return self.features[0] if self.features else (self.image_size // self.patch_size) ** 2

    @property
    def feature_width(self) -> int:
        """D: width of a feature."""
        return self.features[1] if self.features else self.vision_hidden

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
        """Parameters of one layer of the LLM: seven matrices, two norms and the biases of q, k and v if any."""
        biases = self.text_biases * (self.text_hidden + 2 * self.kv_width)
        return sum(rows * columns for rows, columns in self.matrices) + 2 * self.text_hidden + biases

    @property
    def language_parameters(self) -> int:
        """Parameters of the LLM without its head: layers, embeddings, last norm."""
        return self.text_layers * self.layer_parameters + (self.vocabulary + 1) * self.text_hidden

    @property
    def vision_parameters(self) -> int:
        """Parameters of the vision tower: embeddings, layers, first and last norm."""
        if self.tower is not None:
            return self.tower
        width, inner = self.vision_hidden, self.vision_intermediate
        layer = 4 * (width * width + width) + 4 * width + 2 * width * inner + inner + width
        embeddings = width + 3 * width * self.patch_size**2 + (self.image_tokens + 1) * width
        return self.vision_layers * layer + embeddings + 4 * width

    @property
    def projector_parameters(self) -> int:
        """Parameters of one connector MLP."""
        hidden = self.text_hidden
        layers = self.connector or ((self.feature_width, hidden), (hidden, hidden))
        return sum((rows + self.connector_bias) * columns for rows, columns in layers)

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


SMOL = Architecture(
    text_layers=30, text_hidden=576, text_intermediate=1536, text_heads=9, text_kv_heads=3, vocabulary=49153, tied=True,
    features=(49, 1294), connector=((1294, 576), (576, 576)), tower=3_371_008,
)  # fmt: skip
"""Sizes of `smol`, with which a plan needs none of its packages."""


def architecture_of(profile: Profile) -> Architecture:
    """Return the architecture of a profile's backbone; a checkpoint on disk needs only its configuration.

    Raises:
        UserError: the backbone's sizes are not known, or the folder has no configuration of a known family.
    """
    source, named = source_of(profile), models_folder() / profile.backbone
    if profile.backbone_path is not None:
        return _read(expand_home(profile.backbone_path), f"profile {profile.name}: field backbone_path")
    if source.folder is not None:
        return _read(source.folder, f"profile {profile.name}: field backbone")
    if source.packages:
        return SMOL
    if profile.architecture is not None:
        size = profile.architecture
        if size.family != "llava":
            return _of_size(size, f"profile {profile.name}")
        return Architecture(**{name: getattr(size, name) for part in SIZES.values() for name in part})
    if named.is_dir():
        return _read(named, MODELS_VARIABLE)
    if profile.backbone in PUBLISHED:
        return _of_size(PUBLISHED[profile.backbone], f"profile {profile.name}")
    if profile.backbone == "llava-1.5-7b":
        return Architecture()
    raise UserError(
        f"profile {profile.name}: field backbone: the sizes of {profile.backbone!r} are unknown. Download its "
        f"config.json and preprocessor_config.json into {named}, or name a folder with them as backbone_path; a plan "
        "needs no weights."
    )


def _read(folder: Path, where: str) -> Architecture:
    """Read the architecture from a checkpoint's configuration."""
    path = folder / "config.json"
    try:
        written = parse_json(decode(path.read_bytes()))
        model_type = written["model_type"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{where}: {path}: {type(error).__name__}: {error}. Expected a checkpoint's config.json."
        ) from error
    family_of(model_type, f"{where}: {path}")
    if model_type != "llava":
        return _counted(written, f"{where}: {path}")
    try:
        config = _complete(written)
        sizes = {
            part: {field: read_field(config, f"{part}_config.{name}", int) for field, name in SIZES[part].items()}
            for part in SIZES
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{where}: {path}: {type(error).__name__}: {error}. Expected the config.json of a LLaVA checkpoint "
            "(model_type llava), as transformers writes it."
        ) from error
    return Architecture(tied=config["tie_word_embeddings"], **sizes["text"], **sizes["vision"])


def _complete(written: dict[str, Any]) -> dict[str, Any]:
    """Return LLaVA's configuration; import transformers only to add sizes that published files leave out."""
    parts = [(written.get(f"{part}_config") or {}, {*names.values()}) for part, names in SIZES.items()]
    if "tie_word_embeddings" in written and all(names <= part.keys() for part, names in parts):
        return written
    from transformers import LlavaConfig

    resolved: dict[str, Any] = LlavaConfig.from_dict(written).to_dict()
    return resolved


def _of_size(size: RandomModel, where: str) -> Architecture:
    """Count the sizes of a family's model at a size."""
    from pilot.backbone.random_model import chat_tokenizer

    return _counted(family_of(size.family).random_config(size, chat_tokenizer(size.family)).to_dict(), where, size)


def _counted(config: Mapping[str, Any], where: str, size: RandomModel | None = None) -> Architecture:
    """Count the sizes of a model that transformers creates from a configuration, without memory for its weights."""
    from pilot.backbone.families.base import MetaCheckpoint

    family = family_of(config["model_type"], where)
    try:
        checkpoint = MetaCheckpoint.of(family, config, size)
        made = family(checkpoint, Numerics())
        text, layers = made.config.get_text_config(), [made.model.get_submodule(path) for path in family.connector]
        language = sum(parameter.numel() for parameter in made.language_model.parameters())
        connector = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
        head = 0 if made.config.tie_word_embeddings else made.model.lm_head.weight.numel()
        total = sum(parameter.numel() for parameter in made.model.parameters())
        return Architecture(
            text_layers=text.num_hidden_layers,
            text_hidden=text.hidden_size,
            text_intermediate=text.intermediate_size,
            text_heads=text.num_attention_heads,
            text_kv_heads=text.num_key_value_heads,
            vocabulary=text.vocab_size,
            tied=made.config.tie_word_embeddings,
            text_biases=any(name.endswith("q_proj.bias") for name, _ in made.language_model.named_parameters()),
            features=made.feature_shape,
            connector=tuple((layer.in_features, layer.out_features) for layer in layers),
            connector_bias=layers[0].bias is not None,
            tower=total - language - connector - head,
        )
    except Exception as error:  # transformers may raise any for a damaged configuration
        raise UserError(
            f"{where}: {type(error).__name__}: {error}. Expected the configuration of a {family.model_type} checkpoint."
        ) from error
