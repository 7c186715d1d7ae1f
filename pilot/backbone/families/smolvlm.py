"""SmolVLM and SmolVLM2 (Marafioti et al. 2025, arXiv 2504.05299): SigLIP, pixel shuffle, one linear layer, SmolLM2.

An image is one tile: it is resized to the vision tower's square, not split. N = (image side / patch side / factor)^2.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pilot.backbone.families.base import Family, pixel_shuffle
from pilot.config.model import RandomModel


class SmolVlm(Family):
    """SmolVLM's features are its vision tower's last hidden states after the pixel shuffle of its connector."""

    model_type = "smolvlm"
    model_class = "SmolVLMForConditionalGeneration"
    processor_class = "SmolVLMImageProcessorPil"
    opening = "<fake_token_around_image><global-img>"
    closing = "<fake_token_around_image>"
    language = "model.text_model"
    one_tile = MappingProxyType({"do_image_splitting": False})
    connector = ("model.connector.modality_projection.proj",)
    activation = "linear"

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(N, D) after the pixel shuffle."""
        vision, factor = self.config.vision_config, self.config.scale_factor
        side = vision.image_size // vision.patch_size
        return (side // factor) ** 2, vision.hidden_size * factor**2

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the shuffled patches (B, N, D) of each image as one tile."""
        pixels = self._pixels(images, **self.one_tile)["pixel_values"].flatten(0, 1)
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        mask = torch.ones(len(pixels), side, side, dtype=torch.bool, device=pixels.device)
        tower = self.checkpoint.whole.model.vision_model
        hidden = tower(pixel_values=pixels, patch_attention_mask=mask).last_hidden_state
        return pixel_shuffle(hidden, self.config.scale_factor)

    @classmethod
    def random_config(cls, size: RandomModel, tokenizer: Any) -> Any:
        """Return SmolVLM's configuration with SmolLM2 (Llama without biases, with a head of its own) at a size."""
        from transformers import LlamaConfig, SmolVLMConfig

        return SmolVLMConfig(
            vision_config=size.vision() | {"max_image_size": {"longest_edge": size.image_size}},
            text_config=LlamaConfig(**size.text(tokenizer), tie_word_embeddings=False).to_dict(),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            scale_factor=size.merge,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
        )

    @classmethod
    def random_processor(cls, size: RandomModel) -> Any:
        """Return SmolVLM's image processor."""
        from transformers import SmolVLMImageProcessorPil

        side = size.image_size
        return SmolVLMImageProcessorPil(size={"longest_edge": 4 * side}, max_image_size={"longest_edge": side})


class Idefics3(SmolVlm):
    """SmolVLM's first version has Idefics3's configuration and the same modules (Laurencon et al. 2024)."""

    model_type = "idefics3"
    model_class = "Idefics3ForConditionalGeneration"
    processor_class = "Idefics3ImageProcessorPil"
