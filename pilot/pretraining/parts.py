"""A multimodal LLM under pre-training by its parts, whatever their names are in transformers' classes."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class Parts(ABC):
    """Vision tower, connector and LLM of a model; the tower's features are what the connector reads.

    Attributes:
        model: transformers' model.
        tower: the vision tower.
        connector: maps features (B, N, D) to image tokens (B, N, C).
        language: the LLM without its head.
    """

    model: Any
    tower: nn.Module
    connector: nn.Module
    language: nn.Module

    @abstractmethod
    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features (B, N, D) of normalised pixels (B, 3, S, S), and one vector per image (B, E)."""

    @property
    def head(self) -> nn.Module:
        """The LLM's head."""
        found: nn.Module = self.model.lm_head
        return found

    @property
    def embedding(self) -> nn.Module:
        """The LLM's embedding of tokens."""
        found: nn.Module = self.model.get_input_embeddings()
        return found


class LlavaParts(Parts):
    """LLaVA: the second-to-last layer's patches without the class token, which is the image's vector."""

    def __init__(self, model: Any) -> None:
        self.model, inner = model, model.model
        self.tower, self.connector, self.language = (
            inner.vision_tower,
            inner.multi_modal_projector,
            inner.language_model,
        )

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parts`."""
        output = self.tower(pixels, output_hidden_states=True)
        return output.hidden_states[self.model.config.vision_feature_layer][:, 1:], output.pooler_output


class Idefics3Parts(Parts):
    """Idefics3: the last layer's patches after the pixel shuffle; their mean is the image's vector."""

    def __init__(self, model: Any) -> None:
        self.model, inner = model, model.model
        self.tower, self.language = inner.vision_model, inner.text_model
        self.connector = inner.connector.modality_projection

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parts`."""
        from pilot.backbone.families.base import pixel_shuffle

        config = self.model.config
        side = config.vision_config.image_size // config.vision_config.patch_size
        mask = torch.ones(len(pixels), side, side, dtype=torch.bool)
        hidden = self.tower(pixel_values=pixels, patch_attention_mask=mask).last_hidden_state
        features = pixel_shuffle(hidden, config.scale_factor)
        return features, features.mean(dim=1)
