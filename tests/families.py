"""What transformers' models take beside ids, for each family, and the ids of a whole sequence."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pilot.backbone.backbone import Backbone

QUESTION, ANSWER = "What is left of the dog?", "Two cats"
SQUARE = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)


def images() -> list[Image.Image]:
    """Two square images; other shapes are padded or resized before the processor."""
    return [Image.fromarray(picture) for picture in SQUARE]


def whole_ids(made: Backbone) -> Tensor:
    """The ids of a whole sequence, as transformers' model takes them."""
    config = made.model.config
    image = [config.image_token_id] * made.num_image_tokens
    return torch.tensor([*made.prompts.prefix, *image, *made.prompt_ids(QUESTION), *made.answer_ids(ANSWER)])


def prompt(made: Backbone) -> Tensor:
    """The ids of a prompt with its image's tokens."""
    image = [made.model.config.image_token_id] * made.num_image_tokens
    return torch.tensor([*made.prompts.prefix, *image, *made.prompt_ids(QUESTION)])


def stock_inputs(made: Backbone, ids: Tensor) -> dict[str, Any]:
    """What transformers' full forward takes besides ids."""
    family = made.family.model_type
    options: dict[str, Any] = {
        "smolvlm": {"do_image_splitting": False}, "idefics3": {"do_image_splitting": False},
        "internvl": {"crop_to_patches": False},
    }.get(family, {})  # fmt: skip
    pictures: Any = images()
    if family == "llava_onevision":
        pictures = [pictures]
    if family == "qwen2_5_vl":
        pictures = [picture.resize((56, 56), Image.Resampling.BICUBIC) for picture in pictures]
    if family in ("smolvlm", "idefics3"):
        pictures = [[picture] for picture in pictures]
    made_of = dict(made.processor(pictures, return_tensors="pt", **options))
    if family == "internvl":
        made_of.pop("num_patches")
    if family == "llava_onevision":
        made_of["pixel_values"] = made_of["pixel_values"].flatten(0, 1)
    if family == "qwen2_5_vl":
        made_of["mm_token_type_ids"] = (ids == made.model.config.image_token_id).int().expand(2, -1)
    return made_of
