"""InternVL2.5 and 3 (Zhu et al. 2025, arXiv 2504.10479): InternViT, pixel shuffle, layer norm, two layers, Qwen2.

An image is one tile, resized to the vision tower's square. N = (image side / patch side * downsample_ratio)^2.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from PIL import Image
from torch import Tensor

from pilot.backbone.families.base import Family
from pilot.config.model import RandomModel


class InternVl(Family):
    """InternVL's features are its patches after the pixel shuffle and its connector's layer norm, which stays fixed."""

    model_type = "internvl"
    model_class = "InternVLForConditionalGeneration"
    processor_class = "GotOcr2ImageProcessorPil"
    opening = "<img>"
    closing = "</img>"
    one_tile = MappingProxyType({"crop_to_patches": False})

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(N, D) after the pixel shuffle."""
        vision, ratio = self.config.vision_config, self.config.downsample_ratio
        sides = [size // patch for size, patch in zip(vision.image_size, vision.patch_size, strict=True)]
        return round(sides[0] * sides[1] * ratio**2), round(vision.hidden_size / ratio**2)

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the normalised, shuffled patches (B, N, D) of each image as one tile."""
        model, config = self.checkpoint.whole.model, self.config
        output = model.vision_tower(
            pixel_values=self._pixels(images, **self.one_tile)["pixel_values"], output_hidden_states=True
        )
        layer = config.vision_feature_layer
        hidden = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
        hidden = hidden[:, 1:] if config.vision_feature_select_strategy == "default" else hidden
        rows, columns = (
            size // patch
            for size, patch in zip(config.vision_config.image_size, config.vision_config.patch_size, strict=True)
        )
        grid = hidden.reshape(len(hidden), rows, columns, -1)
        shuffled = model.pixel_shuffle(grid, scale_factor=config.downsample_ratio)
        normed: Tensor = model.multi_modal_projector.layer_norm(shuffled.flatten(1, 2))
        return normed

    @classmethod
    def random_config(cls, size: RandomModel, tokenizer: Any) -> Any:
        """Return InternVL3's configuration with Qwen2 (biases in q, k, v) at a size."""
        from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config

        vision = size.vision() | {"image_size": [size.image_size] * 2, "patch_size": [size.patch_size] * 2}
        return InternVLConfig(
            vision_config=InternVLVisionConfig(**vision).to_dict(),
            text_config=Qwen2Config(**size.text(tokenizer), tie_word_embeddings=False).to_dict(),
            image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
            downsample_ratio=1 / size.merge,
            tie_word_embeddings=False,
        )

    @classmethod
    def random_processor(cls, size: RandomModel) -> Any:
        """Return InternVL's image processor."""
        from transformers import GotOcr2ImageProcessorPil

        side = size.image_size
        return GotOcr2ImageProcessorPil(size={"height": side, "width": side}, crop_to_patches=True)
