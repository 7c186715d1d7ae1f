"""What differs between families of multimodal LLMs: features, image tokens, connector, positions and module names."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from pilot.backbone.numerics import Numerics
from pilot.config.model import RandomModel
from pilot.connector.projector import Projector
from pilot.errors import UserError

Positions = Callable[[int], Tensor]
"""Maps a length L to the position ids (A, L) of the first L tokens of every sequence, on A axes."""


class Family(ABC):
    """A family of multimodal LLMs; one instance per loaded checkpoint.

    A sequence is `prefix [image tokens] rest`. An image has N features (N, D): the vision tower's output after the
    family's fixed reshaping and norms. The family's connector, and every adapter in its place, maps them to N tokens.

    Attributes:
        model_type: field of `config.json` by which the family is found.
        model_class: name of the model's class in transformers.
        processor_class: name of the image processor's class in transformers; one that does not need torchvision.
        begin_token: whether prompts begin with the tokenizer's begin token.
        opening: text of the tokens before an image's tokens that the processor adds to the chat template's text.
        closing: text of the tokens after them.
        language: path of the LLM without its head in transformers' model.
        one_tile: options of the image processor with which every image is one tile.
        note: what images undergo in training that `one_tile` does not do, for the cards of exported models.
        connector: paths of the connector's linear layers, first to last; a run's server reads no other weights.
        stock: whether the model's class is one of transformers.
    """

    model_type: ClassVar[str]
    model_class: ClassVar[str]
    processor_class: ClassVar[str]
    begin_token: ClassVar[bool] = False
    opening: ClassVar[str] = ""
    closing: ClassVar[str] = ""
    language: ClassVar[str] = "model.language_model"
    one_tile: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    note: ClassVar[str] = ""
    connector: ClassVar[tuple[str, ...]] = (
        "model.multi_modal_projector.linear_1",
        "model.multi_modal_projector.linear_2",
    )
    stock: ClassVar[bool] = True

    def __init__(self, checkpoint: Any, numerics: Numerics) -> None:
        self.checkpoint, self.numerics = checkpoint, numerics
        self.model: Any = checkpoint.model
        self.config: Any = checkpoint.model.config

    @classmethod
    def classes(cls) -> tuple[Any, Any]:
        """Return the model's class and the image processor's."""
        import transformers

        return getattr(transformers, cls.model_class), getattr(transformers, cls.processor_class)

    @property
    def language_model(self) -> Any:
        """The LLM without its head."""
        found: Any = self.model.get_submodule(self.language)
        return found

    @property
    @abstractmethod
    def feature_shape(self) -> tuple[int, int]:
        """(N, D): features per image and their width."""

    @abstractmethod
    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the features (B, N, D) of a batch of RGB images, on the model's device."""

    @property
    def activation(self) -> str:
        """Name of the activation between the connector's linear layers."""
        return str(self.config.projector_hidden_act)

    def projector(self) -> Projector:
        """Return a frozen float32 copy of the family's own connector, in host memory."""
        layers = [self.model.get_submodule(path) for path in self.connector]
        return Projector.of_layers(layers, self.activation).requires_grad_(False)

    def after_image(self) -> Tensor | None:
        """Return fixed embeddings (E, C) that follow an image's tokens; None for none."""
        return None

    def positions(self, num_prefix: int) -> Positions | None:
        """Return the position ids of sequences with `num_prefix` tokens before the image; None for 0, 1, 2, ..."""
        return None

    @classmethod
    def problems(cls, config: Mapping[str, Any]) -> Iterator[str]:
        """Yield what keeps a checkpoint with this `config.json` from being used, and what to do."""
        yield from ()

    @classmethod
    def processor_problems(cls, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
        """Yield why the settings of an image processor do not fit this `config.json`, and what to do."""
        yield from ()

    @classmethod
    def random_config(cls, size: RandomModel, tokenizer: Any) -> Any:
        """Return a configuration of this family at a size, with the special ids of `tokenizer`.

        Raises:
            UserError: the family has no models with random weights.
        """
        raise UserError(f"architecture: field family: {cls.model_type!r} has no models with random weights.")

    @classmethod
    def random_processor(cls, size: RandomModel) -> Any:
        """Return an image processor with the family's published settings at a size; raises as `random_config`."""
        raise UserError(f"architecture: field family: {cls.model_type!r} has no models with random weights.")

    def _pixels(self, images: Sequence[Any], **options: Any) -> Mapping[str, Tensor]:
        """Run the checkpoint's image processor; return its tensors on the model's device, floats in its type."""
        made = self.checkpoint.processor(images, return_tensors="pt", **options)
        return {name: self.numerics.to_device(value) for name, value in made.items() if torch.is_tensor(value)}


@dataclass(frozen=True)
class MetaCheckpoint:
    """A model without weights, made from a configuration on PyTorch's meta device.

    Attributes:
        model: transformers' model.
        processor: the image processor with the family's defaults, or at a size.
    """

    model: Any
    processor: Any

    @classmethod
    def of(cls, family: type[Family], config: Mapping[str, Any], size: RandomModel | None = None) -> "MetaCheckpoint":
        """Create a family's model from the content of `config.json`; `size` is that of a random model."""
        model_class, processor = family.classes()
        with torch.device("meta"):
            model = model_class(model_class.config_class.from_dict(dict(config)))
        return cls(model, family.random_processor(size) if size else processor())


def pixel_shuffle(features_BND: Tensor, factor: int) -> Tensor:
    """Join squares of `factor` x `factor` neighbouring patches: (B, N, D) to (B, N / factor^2, factor^2 D).

    Patches are in rows of a square image; within a joined one they follow each other row by row.
    """
    count, num, width = features_BND.shape
    side = round(num**0.5)
    grid = features_BND.view(count, side // factor, factor, side // factor, factor * width)
    return grid.transpose(2, 3).reshape(count, num // factor**2, factor**2 * width)
