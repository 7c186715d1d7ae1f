"""Qwen2.5-VL (Bai et al. 2025, arXiv 2502.13923): window attention, merger, Qwen2 with multimodal rotary positions.

An image has one resolution: it is resized to a square of `side` pixels, so that every image has the same tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from pilot.backbone.families.base import Family, Positions
from pilot.config.model import RandomModel

PUBLISHED_SIDE = 448
"""Pixels: 16 x 16 = 256 tokens. The published model takes any size; this is a choice of this suite."""


class QwenVl(Family):
    """Qwen2.5-VL's features are normalised patches, joined in squares: its merger before the merger's two layers."""

    model_type = "qwen2_5_vl"
    model_class = "Qwen2_5_VLForConditionalGeneration"
    processor_class = "Qwen2VLImageProcessorPil"
    note = "In training every image was resized to a square of at most 448 pixels before the processor: do the same."
    connector = ("model.visual.merger.mlp.0", "model.visual.merger.mlp.2")
    activation = "gelu"

    @property
    def side(self) -> int:
        """Pixels of the square that images are resized to: the largest allowed multiple of a token's side."""
        vision = self.config.vision_config
        token = vision.patch_size * vision.spatial_merge_size
        limit = int(self.checkpoint.processor.size["longest_edge"] ** 0.5)
        return min(PUBLISHED_SIDE, limit) // token * token

    @property
    def _grid(self) -> int:
        """Tokens along a side."""
        vision = self.config.vision_config
        return self.side // (vision.patch_size * vision.spatial_merge_size)

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(N, D): tokens, and the merger's width."""
        vision = self.config.vision_config
        return self._grid**2, vision.hidden_size * vision.spatial_merge_size**2

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the merged patches (B, N, D) of each image."""
        square = [image.resize((self.side, self.side), Image.Resampling.BICUBIC) for image in images]
        pixels, visual = self._pixels(square), self.checkpoint.whole.model.visual
        layers, visual.merger.mlp = visual.merger.mlp, nn.Identity()
        try:
            merged: Tensor = visual(pixels["pixel_values"], grid_thw=pixels["image_grid_thw"]).pooler_output
        finally:
            visual.merger.mlp = layers
        return merged.view(len(images), *self.feature_shape)

    def positions(self, num_prefix: int) -> Positions:
        """Return the ids of time, row and column (3, L): an image's tokens share a time and span a square of places."""
        grid = self._grid
        rows, columns = (place.flatten() for place in torch.meshgrid(*[torch.arange(grid)] * 2, indexing="ij"))
        image = torch.stack([torch.zeros_like(rows), rows, columns]) + num_prefix

        def of(length: int) -> Tensor:
            before = torch.arange(num_prefix).expand(3, -1)
            after = torch.arange(max(0, length - num_prefix - grid**2)).expand(3, -1) + num_prefix + grid
            return torch.cat([before, image, after], dim=1)[:, :length]

        return of

    @classmethod
    def random_config(cls, size: RandomModel, tokenizer: Any) -> Any:
        """Return Qwen2.5-VL's configuration at a size."""
        from transformers import Qwen2_5_VLConfig

        width = size.text_hidden // size.text_heads
        section = [width // 2 - 2 * (width // 6), width // 6, width // 6]
        text = size.text(tokenizer) | {
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section},
        }
        vision = {
            "depth": size.vision_layers, "hidden_size": size.vision_hidden, "num_heads": size.vision_heads,
            "intermediate_size": size.vision_intermediate, "patch_size": size.patch_size,
            "spatial_merge_size": size.merge, "window_size": 2 * size.merge * size.patch_size,
            "out_hidden_size": size.text_hidden, "fullatt_block_indexes": [size.vision_layers - 1],
        }  # fmt: skip
        ids = {f"{kind}_token_id": tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video")}
        marks = {
            f"vision_{end}_token_id": tokenizer.convert_tokens_to_ids(f"<|vision_{end}|>") for end in ("start", "end")
        }
        return Qwen2_5_VLConfig(vision_config=vision, text_config=text, **ids, **marks, tie_word_embeddings=True)

    @classmethod
    def random_processor(cls, size: RandomModel) -> Any:
        """Return Qwen2.5-VL's image processor, with images of at most the size's side."""
        from transformers import Qwen2VLImageProcessorPil

        pixels = size.image_size**2
        return Qwen2VLImageProcessorPil(
            size={"shortest_edge": pixels // 4, "longest_edge": pixels},
            patch_size=size.patch_size,
            merge_size=size.merge,
        )
