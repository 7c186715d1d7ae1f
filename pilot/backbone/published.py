"""Sizes of published checkpoints, with which a plan needs no download. No file of the hub was read for them here."""

from collections.abc import Mapping
from typing import Any

from pilot.config.model import RandomModel

_QWEN2_05B: dict[str, Any] = {
    "text_layers": 24, "text_hidden": 896, "text_intermediate": 4864, "text_heads": 14, "text_kv_heads": 2,
    "max_positions": 32768,
}  # fmt: skip
_SIGLIP_512: dict[str, Any] = {
    "vision_layers": 12, "vision_hidden": 768, "vision_intermediate": 3072, "vision_heads": 12, "image_size": 512,
    "patch_size": 16, "merge": 4,
}  # fmt: skip
PUBLISHED: Mapping[str, RandomModel] = {
    "llava-onevision-0.5b": RandomModel(
        family="llava_onevision", vocabulary=152000, vision_layers=26, vision_hidden=1152, vision_intermediate=4304,
        vision_heads=16, image_size=378, patch_size=14, **_QWEN2_05B,
    ),
    "smolvlm-256m": RandomModel(
        family="smolvlm", vocabulary=49280, text_layers=30, text_hidden=576, text_intermediate=1536, text_heads=9,
        text_kv_heads=3, max_positions=8192, **_SIGLIP_512,
    ),
    "smolvlm2-500m": RandomModel(
        family="smolvlm", vocabulary=49280, text_layers=32, text_hidden=960, text_intermediate=2560, text_heads=15,
        text_kv_heads=5, max_positions=8192, **_SIGLIP_512,
    ),
    "qwen2.5-vl-3b": RandomModel(
        family="qwen2_5_vl", merge=2, vocabulary=151936, text_layers=36, text_hidden=2048, text_intermediate=11008,
        text_heads=16, text_kv_heads=2, max_positions=128000, vision_layers=32, vision_hidden=1280,
        vision_intermediate=3420, vision_heads=16, image_size=448, patch_size=14,
    ),
    "internvl3-1b": RandomModel(
        family="internvl", merge=2, vocabulary=151674, vision_layers=24, vision_hidden=1024, vision_intermediate=4096,
        vision_heads=16, image_size=448, patch_size=14, **_QWEN2_05B,
    ),
}  # fmt: skip
"""By the names of `pilot.backbone.sources.BACKBONES`; LLaVA-OneVision reads 27 x 14 of its images' 384 pixels."""
