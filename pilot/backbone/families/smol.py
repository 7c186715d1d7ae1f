"""`smol`: EfficientNet-lite0, two layers, SmolLM2; both parts from packages of PyPI (`pilot.backbone.smol`)."""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from pilot.backbone.families.base import Family


class Smol(Family):
    """Features of `smol` are the cells of its vision tower's last map, each with its column and row.

    An image is resized to the vision tower's square; N = (image side / 32)^2.
    """

    model_type = "pilot_smol"
    model_class = "SmolForConditionalGeneration"
    processor_class = "ViTImageProcessorPil"
    stock = False

    @classmethod
    def classes(cls) -> tuple[Any, Any]:
        """Return the model's class, which is this package's, and the image processor's."""
        import transformers

        from pilot.backbone.smol_model import SmolConfig, SmolForConditionalGeneration

        transformers.AutoConfig.register(cls.model_type, SmolConfig, exist_ok=True)  # the tokenizer's loader asks
        return SmolForConditionalGeneration, getattr(transformers, cls.processor_class)

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(N, D): cells of an image, and the width of the feature map with a cell's position."""
        vision = self.config.vision_config
        return (vision.image_size // vision.patch_size) ** 2, vision.hidden_size

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the cells (B, N, D) of resized images."""
        pixels = self.checkpoint.processor(images, return_tensors="pt")["pixel_values"]  # float32, as the tower
        cells: Tensor = self.checkpoint.whole.model.vision_tower(pixels.to(self.numerics.device)).last_hidden_state
        return cells
