"""LLaVA-1.5 (Liu et al., CVPR 2024): CLIP, two layers, Llama."""

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pilot.backbone.families.base import Family
from pilot.backbone.families.fields import read_field
from pilot.config.model import RandomModel
from pilot.connector.projector import ACTIVATIONS

_STRATEGIES = ("default", "full")


class Llava(Family):
    """LLaVA's features are the tokens of the layers that its configuration names.

    LLaVA-1.5 takes the patches of the second-to-last layer without the class token; features of several layers are
    concatenated along D. Images that are not square are padded to a square with the processor's mean colour.
    """

    model_type = "llava"
    model_class = "LlavaForConditionalGeneration"
    processor_class = "CLIPImageProcessorPil"
    begin_token = True

    @classmethod
    def problems(cls, config: Mapping[str, Any]) -> Iterator[str]:
        """Yield what differs from LLaVA-1.5: the vision tower, the projector's activation, layers that do not exist."""
        depth = read_field(config, "vision_config.num_hidden_layers", int, default=24)
        layer = config.get("vision_feature_layer", -2)
        layers = layer if isinstance(layer, list) else [layer]
        checks = [
            (
                "vision_config.model_type",
                kind := read_field(config, "vision_config.model_type", str, default="clip_vision_model"),
                "'clip_vision_model': other towers, such as SigLIP, have no class token and other features",
                kind == "clip_vision_model",
            ),
            (
                "projector_hidden_act", act := read_field(config, "projector_hidden_act", str, default="gelu"),
                f"one of {', '.join(ACTIVATIONS)}", act in ACTIVATIONS,
            ),
            (
                "vision_feature_select_strategy", strategy := config.get("vision_feature_select_strategy", "default"),
                f"one of {', '.join(_STRATEGIES)}", strategy in _STRATEGIES,
            ),
            (
                "vision_feature_layer", layer, f"a layer, or a list of layers, within -{depth + 1}..{depth}",
                bool(layers) and all(type(each) is int and -depth - 1 <= each <= depth for each in layers),
            ),
        ]  # fmt: skip
        for field, found, expected, fits in checks:
            if not fits:
                yield f"field {field}: expected {expected}, got {found!r}. Choose another checkpoint"

    @classmethod
    def processor_problems(cls, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
        """Yield a crop of another size than the vision tower's images."""
        side = read_field(config, "vision_config.image_size", int, default=336)
        field = "crop_size" if settings.get("do_center_crop", True) else "size"
        size = read_field(settings, field, int, dict, NoneType)
        sides = [size] if isinstance(size, int) else list((size or {}).values())
        if any(each != side for each in sides):
            expected = f"{side} pixels, the vision tower's image_size"
            yield f"field {field}: expected {expected}, got {size!r}. Copy the checkpoint's own file"

    @property
    def _layers(self) -> list[int]:
        layers: int | list[int] = self.config.vision_feature_layer
        return layers if isinstance(layers, list) else [layers]

    @property
    def _class_token(self) -> bool:
        """Whether the class token is one of an image's tokens."""
        kept: bool = self.config.vision_feature_select_strategy == "full"
        return kept

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(N, D): tokens per image, and the vision tower's width times the number of selected layers."""
        vision = self.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return patches + self._class_token, len(self._layers) * vision.hidden_size

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the features (B, N, D) of padded images."""
        pixels = self._pixels([self.square(image) for image in images])["pixel_values"]
        output = self.checkpoint.whole.model.vision_tower(pixels, output_hidden_states=True)
        layers = [output.hidden_states[layer] for layer in self._layers]
        return torch.cat(layers, dim=-1)[:, 0 if self._class_token else 1 :]

    def square(self, image: Image.Image) -> Image.Image:
        """Pad an image to a square with the processor's mean colour, as LLaVA-1.5 does."""
        if image.width == image.height:
            return image
        side = max(image.size)
        red, green, blue = (int(255 * value) for value in self.checkpoint.processor.image_mean)
        padded = Image.new("RGB", (side, side), (red, green, blue))
        padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return padded

    @classmethod
    def random_config(cls, size: RandomModel, tokenizer: Any) -> Any:
        """Return LLaVA-1.5's configuration at a size."""
        from pilot.backbone.random_llava import llava_config

        return llava_config(size, tokenizer)

    @classmethod
    def random_processor(cls, size: RandomModel) -> Any:
        """Return LLaVA-1.5's image processor."""
        from pilot.backbone.random_llava import random_processor

        return random_processor(size)
