"""The recipes of the checkpoints that ship: all numbers on which they depend."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

import torch

from pilot.io.digest import code_digest, digest_json

VISION_SOURCES = (
    "pilot/pretraining/corpus.py",
    "pilot/pretraining/architecture.py",
    "pilot/pretraining/parts.py",
    "pilot/pretraining/vision.py",
    "pilot/pretraining/step.py",
    "pilot/data/scenes/sprites.py",
    "pilot/data/scenes/scene.py",
)
LANGUAGE_SOURCES = (
    "pilot/pretraining/captions.py",
    "pilot/pretraining/general_text.py",
    "pilot/pretraining/tokenizer.py",
    "pilot/pretraining/language.py",
)
REFINEMENT_SOURCES = (
    "pilot/pretraining/alignment.py",
    "pilot/pretraining/focused_captions.py",
)
CONSOLIDATION_SOURCES = (
    "pilot/pretraining/consolidation.py",
    "pilot/pretraining/fact_captions.py",
    "pilot/pretraining/lookup.py",
    "pilot/pretraining/make.py",
)


@dataclass(frozen=True)
class PhaseRecipe:
    """Steps, batch and peak learning rate (cosine to a tenth, 3 % warm-up) of one phase."""

    steps: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class Recipe:
    """Sizes, corpus and phases of tiny-llava's pre-training; widths in features, image sides in pixels.

    `patch_size` is the side of the cell of the image that one feature covers.
    """

    seed: int = 0
    patch_size: int = 16
    vision_width: int = 128
    vision_layers: int = 4
    vision_feed_forward: int = 384
    text_width: int = 128
    text_layers: int = 4
    text_feed_forward: int = 256
    num_heads: int = 4
    vocabulary_size: int = 1_300
    num_train_scenes: int = 40_000
    num_held_out_scenes: int = 500
    sentences_per_caption: int = 5
    captions_per_scene: int = 3
    facts_per_scene: int = 4
    num_text_sentences: int = 20_000
    vision: PhaseRecipe = PhaseRecipe(steps=6_000, batch_size=64, learning_rate=1.2e-3)
    text: PhaseRecipe = PhaseRecipe(steps=900, batch_size=32, learning_rate=2e-3)
    connector: PhaseRecipe = PhaseRecipe(steps=400, batch_size=32, learning_rate=2e-3)
    joint: PhaseRecipe = PhaseRecipe(steps=6_000, batch_size=32, learning_rate=1.5e-3)
    align: PhaseRecipe = PhaseRecipe(steps=400, batch_size=128, learning_rate=3e-3)
    refine: PhaseRecipe = PhaseRecipe(steps=4_000, batch_size=40, learning_rate=2e-3)
    consolidate: PhaseRecipe = PhaseRecipe(steps=6_500, batch_size=40, learning_rate=2e-3)

    @property
    def feature_width(self) -> int:
        """Width of the features that the connector reads."""
        return self.vision_width

    @property
    def stored_as(self) -> torch.dtype:
        """Type of the checkpoint's weights."""
        return torch.float32

    def digest(self) -> str:
        """Return the digest of the numbers and of the code that turns them into a checkpoint."""
        sources = VISION_SOURCES + LANGUAGE_SOURCES + REFINEMENT_SOURCES + CONSOLIDATION_SOURCES
        return self._digest_without(frozenset(), sources)

    def vision_digest(self) -> str:
        """Return the digest of what the vision phase depends on, so that changes of the text do not repeat it."""
        return self._digest_without(_LANGUAGE_FIELDS | _REFINEMENT_FIELDS | _LAST_FIELDS, VISION_SOURCES)

    def language_digest(self) -> str:
        """Return the digest of what the phases text, connector and joint depend on."""
        return self._digest_without(_REFINEMENT_FIELDS | _LAST_FIELDS, VISION_SOURCES + LANGUAGE_SOURCES)

    def refinement_digest(self) -> str:
        """Return the digest of what the phases align and refine depend on."""
        return self._digest_without(_LAST_FIELDS, VISION_SOURCES + LANGUAGE_SOURCES + REFINEMENT_SOURCES)

    def _digest_without(self, fields: frozenset[str], sources: tuple[str, ...]) -> str:
        numbers = {name: value for name, value in asdict(self).items() if name not in fields}
        return digest_json({"recipe": numbers, "source": code_digest(sources)})


@dataclass(frozen=True)
class Idefics3Recipe(Recipe):
    """The recipe of tiny-idefics3: SigLIP's tower, pixel shuffle, one linear layer, Qwen2 with grouped queries.

    The corpus and the order of the phases are tiny-llava's; `shuffle` is the factor by which the pixel shuffle joins
    patches of the tower on each side, `num_heads` are the LLM's, which share `num_key_value_heads` keys and values.
    """

    shuffle: int = 2
    vision_width: int = 96
    vision_layers: int = 4
    vision_feed_forward: int = 288
    vision_heads: int = 4
    text_width: int = 256
    text_layers: int = 5
    text_feed_forward: int = 640
    num_heads: int = 8
    num_key_value_heads: int = 2
    joint: PhaseRecipe = PhaseRecipe(steps=2_500, batch_size=32, learning_rate=1.0e-3)
    refine: PhaseRecipe = PhaseRecipe(steps=4_000, batch_size=40, learning_rate=1.2e-3)
    consolidate: PhaseRecipe = PhaseRecipe(steps=6_000, batch_size=40, learning_rate=1.2e-3)

    @property
    def feature_width(self) -> int:
        """Width of the features after the pixel shuffle."""
        return self.vision_width * self.shuffle**2

    @property
    def stored_as(self) -> torch.dtype:
        """Half the bytes; runs compute in float32."""
        return torch.float16


_LAST_FIELDS = frozenset({"consolidate", "facts_per_scene", "num_held_out_scenes"})
_REFINEMENT_FIELDS = frozenset({"align", "refine"})
_LANGUAGE_FIELDS = frozenset(
    {
        "text_width", "text_layers", "text_feed_forward", "vocabulary_size", "num_held_out_scenes",
        "sentences_per_caption", "captions_per_scene", "num_text_sentences", "text", "connector", "joint",
    }
)  # fmt: skip
RECIPES: Mapping[str, Recipe] = MappingProxyType({"tiny-llava": Recipe(), "tiny-idefics3": Idefics3Recipe()})
"""The recipe of every checkpoint that ships, by the backbone's name."""
