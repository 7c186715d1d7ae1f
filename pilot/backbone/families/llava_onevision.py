"""LLaVA-OneVision (Li et al. 2024, arXiv 2408.03326): SigLIP, two layers, Qwen2; one tile per image.

One tile is what the model was trained on for several images and videos: the image, padded to a square and resized to
384 pixels, without crops. The learned newline embedding follows its 729 tokens. In transformers this is the path of
`batch_num_images` other than 1.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pilot.backbone.families.base import Family
from pilot.config.model import RandomModel


class LlavaOneVision(Family):
    """LLaVA-OneVision's features are the patches of the layers that its configuration names."""

    model_type = "llava_onevision"
    model_class = "LlavaOnevisionForConditionalGeneration"
    processor_class = "LlavaOnevisionImageProcessorPil"
    note = (
        "In training every image was one tile, padded to a square, as in prompts with several images: give the "
        "processor a list of two images, take the first one's pixels, and pass `batch_num_images=torch.tensor([2])`."
    )

    @property
    def _layers(self) -> list[int]:
        layers: int | list[int] = self.config.vision_feature_layer
        return layers if isinstance(layers, list) else [layers]

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(N, D): patches, and the vision tower's width times the number of selected layers."""
        vision = self.config.vision_config
        return (vision.image_size // vision.patch_size) ** 2, len(self._layers) * vision.hidden_size

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the patches (B, N, D) of each image as one tile."""
        several = [list(images) if len(images) > 1 else [*images, *images]]  # one image alone would be cut into crops
        pixels = self._pixels(several)["pixel_values"].flatten(0, 1)[: len(images)]
        output = self.checkpoint.whole.model.vision_tower(pixels, output_hidden_states=True)
        return torch.cat([output.hidden_states[layer] for layer in self._layers], dim=-1)

    def after_image(self) -> Tensor | None:
        """Return the learned newline (1, C)."""
        newline: Tensor = self.model.model.image_newline[None].detach()
        return newline

    @classmethod
    def random_config(cls, size: RandomModel, tokenizer: Any) -> Any:
        """Return LLaVA-OneVision's configuration with Qwen2 (biases in q, k, v) at a size."""
        from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

        return LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**size.vision(), vision_use_head=False).to_dict(),
            text_config=Qwen2Config(**size.text(tokenizer), tie_word_embeddings=True).to_dict(),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
            image_grid_pinpoints=[[size.image_size, size.image_size * n] for n in (1, 2)],
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=True,
        )

    @classmethod
    def random_processor(cls, size: RandomModel) -> Any:
        """Return LLaVA-OneVision's image processor."""
        from transformers import LlavaOnevisionImageProcessorPil

        side = size.image_size
        return LlavaOnevisionImageProcessorPil(
            size={"height": side, "width": side}, image_grid_pinpoints=[[side, side * n] for n in (1, 2)],
            image_mean=[0.5] * 3, image_std=[0.5] * 3,
        )  # fmt: skip
