"""Model settings of a profile: the size of random models, LoRA, learning rates, number types, devices."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from pilot.config.base import CompactModel, Count, Model, Positive

Precision = Literal["float32", "bfloat16"]
Attention = Literal["eager", "sdpa"]
FeatureType = Literal["float32", "float16", "bfloat16"]
Device = Literal["cpu", "cuda", "auto"]
Frame = Literal["original", "padded_square", "thousandths", "pixels_448"]
"""Frame of boxes in answers: fractions of the image, fractions of the centred square that LLaVA-1.5 pads it to, whole
thousandths of the image's sides (InternVL), or pixels of the image resized to 448 x 448 (Qwen2.5-VL)."""
FRAMES: tuple[Frame, ...] = get_args(Frame)
UNITS: Mapping[str, int] = {"original": 1, "padded_square": 1, "thousandths": 1000, "pixels_448": 448}
"""Number that stands for a whole side in each frame; numbers of more than 1 per side are written as integers."""


class RandomModel(CompactModel):
    """The size of a model with random weights; the defaults are those of LLaVA-1.5-7B (7.06 billion parameters).

    `family` is the `model_type` of its family, and `merge` the side of the squares of patches that families other than
    LLaVA join to one token.

    With `materialise` the weights are written once, as a sharded checkpoint in the hub's layout, and read from there;
    without it, every process creates them on its device, which needs no disk.
    """

    omitted_defaults: ClassVar[frozenset[str]] = frozenset({"family", "merge"})

    family: str = "llava"
    merge: Count = 1
    seed: Annotated[int, Field(ge=0)] = 0
    vocabulary: Count = 32064
    text_layers: Count = 32
    text_hidden: Count = 4096
    text_intermediate: Count = 11008
    text_heads: Count = 32
    text_kv_heads: Count = 32
    max_positions: Count = 4096
    vision_layers: Annotated[int, Field(ge=2)] = 24
    vision_hidden: Count = 1024
    vision_intermediate: Count = 4096
    vision_heads: Count = 16
    image_size: Count = 336
    patch_size: Count = 14
    materialise: bool = True

    @model_validator(mode="after")
    def _divisible(self) -> "RandomModel":
        rules = {
            "text_hidden": ("text_heads", self.text_hidden % (2 * self.text_heads) == 0, "an even multiple"),
            "text_heads": ("text_kv_heads", self.text_heads % self.text_kv_heads == 0, "a multiple"),
            "vision_hidden": ("vision_heads", self.vision_hidden % self.vision_heads == 0, "a multiple"),
            "image_size": ("patch_size", self.image_size % self.patch_size == 0, "a multiple"),
        }
        for field, (other, fits, expected) in rules.items():
            if not fits:
                raise ValueError(f"{field}: expected {expected} of {other}, got {getattr(self, field)}")
        return self

    @property
    def num_image_tokens(self) -> int:
        """N: patches of an image, or squares of patches that are joined."""
        return (self.image_size // self.patch_size // self.merge) ** 2

    def vision(self) -> dict[str, Any]:
        """Return the vision tower's sizes under the names that most of transformers' configurations have."""
        return {
            "hidden_size": self.vision_hidden, "intermediate_size": self.vision_intermediate,
            "num_hidden_layers": self.vision_layers, "num_attention_heads": self.vision_heads,
            "image_size": self.image_size, "patch_size": self.patch_size,
        }  # fmt: skip

    def text(self, tokenizer: Any) -> dict[str, Any]:
        """Return the LLM's sizes under transformers' names, with the special ids of `tokenizer`."""
        return {
            "vocab_size": max(self.vocabulary, len(tokenizer)), "hidden_size": self.text_hidden,
            "intermediate_size": self.text_intermediate, "num_hidden_layers": self.text_layers,
            "num_attention_heads": self.text_heads, "num_key_value_heads": self.text_kv_heads,
            "max_position_embeddings": self.max_positions, "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        }  # fmt: skip


class LoraConfig(CompactModel):
    """LoRA's rank, scale numerator (W + alpha / rank * B A) and computation.

    `space`: `weight` computes W + scale B A once per step, faster if tokens outnumber the rank at small widths;
    `token` computes W x + scale B (A x), whose backward pass needs no gradient of the size of W. With bfloat16 only
    `token` is accepted, since the sum would be rounded to W's type.
    """

    omitted_defaults: ClassVar[frozenset[str]] = frozenset({"space"})

    rank: Count
    alpha: Positive
    space: Literal["weight", "token"] = "weight"


class PhaseRates(Model):
    """Peak learning rates of one phase that differ from the method's usual ones."""

    text_adapter: Positive | None = None
    connector: Positive | None = None


class LearningRates(CompactModel):
    """Peak learning rates of the LLM's LoRA and of everything between vision tower and LLM; exceptions by phase."""

    omitted_defaults: ClassVar[frozenset[str]] = frozenset({"phases"})

    text_adapter: Positive
    connector: Positive
    phases: Mapping[str, PhaseRates] = Field(default_factory=dict)

    def of_phase(self, phase: str) -> dict[str, float]:
        """Return the rates of a phase, by group."""
        own = self.phases.get(phase, PhaseRates())
        return {
            "text_adapter": own.text_adapter or self.text_adapter,
            "connector": own.connector or self.connector,
        }


class Trial(LearningRates):
    """One candidate of `pilot-bench tune`: learning rates, and options of the method that override the profile's."""

    omitted_defaults: ClassVar[frozenset[str]] = frozenset({"phases", "options"})

    options: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def rates(self) -> LearningRates:
        """The trial's learning rates without its options."""
        return LearningRates(text_adapter=self.text_adapter, connector=self.connector, phases=self.phases)
