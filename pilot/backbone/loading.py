"""From a profile to a model, its tokenizer and its image processor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    LlavaForConditionalGeneration,
)

from pilot.backbone.numerics import Numerics
from pilot.backbone.paths import checkpoint_folder
from pilot.backbone.random_llava import random_model, random_processor, random_tokenizer, write_random_llava
from pilot.config import Profile


@dataclass(frozen=True)
class Checkpoint:
    """A `LlavaForConditionalGeneration` on its device in its type, frozen, its tokenizer and its image processor."""

    model: Any
    tokenizer: Any
    processor: Any


def load_checkpoint(profile: Profile, numerics: Numerics) -> Checkpoint:
    """The profile's backbone; `llava-random` is made where it is not there yet.

    Raises:
        UserError: as `pilot.backbone.paths.checkpoint_folder`.
    """
    size = profile.architecture
    if size is not None and not size.materialise:
        model = random_model(size, numerics.device, numerics.dtype)
        model.set_attn_implementation(numerics.attention)
        return Checkpoint(model.eval().requires_grad_(False), random_tokenizer(), random_processor(size))
    folder = checkpoint_folder(profile)
    if size is not None and not folder.is_dir():
        write_random_llava(size, folder)
    return read_checkpoint(folder, numerics)


def read_checkpoint(folder: Path, numerics: Numerics) -> Checkpoint:
    """A checkpoint as transformers writes it; on a GPU without a second copy in the host's memory."""
    placed: dict[str, Any] = {"device_map": {"": numerics.device}} if numerics.device != torch.device("cpu") else {}
    model = LlavaForConditionalGeneration.from_pretrained(
        folder, local_files_only=True, attn_implementation=numerics.attention, dtype=numerics.dtype, **placed
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    return Checkpoint(model.eval().requires_grad_(False), tokenizer, processor)
