"""Models of any family with random weights at any size, for tests and measurements.

Every parameter is drawn from a separate generator, seeded by its name: N(0, 0.02^2), plus 1 for the weights of norms.
The tokenizer is tiny-llava's with the family's special tokens and a chat template in ChatML's form.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from pilot.backbone.families.table import family_of
from pilot.backbone.random_llava import STD, random_tokenizer
from pilot.config.model import RandomModel
from pilot.io.atomic import create_folder
from pilot.io.seeding import seed_for

SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<image>", "<video>", "<fake_token_around_image>", "<global-img>", "<img>", "</img>",
    "<IMG_CONTEXT>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
IMAGES = {"qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>", "internvl": "<IMG_CONTEXT>"}
"""What a chat template writes for an image; `<image>` in the other families."""
TEMPLATE = (
    "{%% for message in messages %%}{{ '<|im_start|>' + message['role'] + '\n' }}{%% for part in message['content'] %%}"
    "{%% if part['type'] == 'image' %%}%s{%% else %%}{{ part['text'] }}{%% endif %%}{%% endfor %%}"
    "{{ '<|im_end|>\n' }}{%% endfor %%}{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\n' }}{%% endif %%}"
)


def chat_tokenizer(family: str) -> Any:
    """Return tiny-llava's tokenizer with the special tokens of all families and a chat template for one of them."""
    tokenizer = random_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = TEMPLATE % IMAGES.get(family, "<image>")
    return tokenizer


def random_family_model(size: RandomModel) -> Any:
    """Create a model on the CPU in float32."""
    family = family_of(size.family)
    config = family.random_config(size, chat_tokenizer(size.family))
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, family.model_class)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_tensor(name, parameter.shape, size.seed))
    return model.eval().requires_grad_(False)


def write_random_model(size: RandomModel, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the checkpoint atomically, as transformers writes it: weights, configuration, tokenizer and processor."""

    def fill(work: Path) -> None:
        random_family_model(size).to(dtype).save_pretrained(work)
        chat_tokenizer(size.family).save_pretrained(work)
        family_of(size.family).random_processor(size).save_pretrained(work)

    create_folder(folder, fill)


def _tensor(name: str, shape: torch.Size, seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed_for("random model", seed, name))
    noise = torch.randn(shape, generator=source) * STD
    return noise + 1 if len(shape) == 1 and name.endswith("weight") else noise
