"""From a profile to a model, its tokenizer and its image processor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pilot.backbone.lean import LeanCheckpoint, is_lean
from pilot.backbone.numerics import Numerics
from pilot.backbone.paths import checkpoint_folder
from pilot.config import Profile
from pilot.model_settings import RandomLlava


@dataclass(frozen=True)
class Checkpoint:
    """A `LlavaForConditionalGeneration` on its device in its type, frozen, its tokenizer and its image processor."""

    model: Any
    tokenizer: Any
    processor: Any

    @property
    def vision_tower(self) -> nn.Module:
        """The model's vision tower."""
        tower: nn.Module = self.model.model.vision_tower
        return tower


def load_checkpoint(profile: Profile, numerics: Numerics, *, lean: bool = False) -> Checkpoint | LeanCheckpoint:
    """The profile's backbone; `llava-random` is made where it is not there yet.

    Args:
        profile: names the backbone.
        numerics: where it computes.
        lean: without transformers' model where that is not needed: no pass but the packed ones.

    Raises:
        UserError: as `pilot.backbone.paths.checkpoint_folder`.
    """
    size = profile.architecture
    if size is None:
        folder = checkpoint_folder(profile)
        if lean and is_lean(folder, numerics):
            return LeanCheckpoint(folder, numerics)
        return read_checkpoint(folder, numerics)
    return _load_random(profile, size, numerics)


def _load_random(profile: Profile, size: RandomLlava, numerics: Numerics) -> Checkpoint:
    from pilot.backbone.random_llava import random_model, random_processor, random_tokenizer, write_random_llava

    if not size.materialise:
        model = random_model(size, numerics.device, numerics.dtype)
        model.set_attn_implementation(numerics.attention)
        return Checkpoint(model.eval().requires_grad_(False), random_tokenizer(), random_processor(size))
    folder = checkpoint_folder(profile)
    if not folder.is_dir():
        write_random_llava(size, folder)
    return read_checkpoint(folder, numerics)


def read_checkpoint(folder: Path, numerics: Numerics) -> Checkpoint:
    """A checkpoint as transformers writes it; on a GPU without a second copy in the host's memory."""
    import transformers
    from transformers import AutoTokenizer, CLIPImageProcessorPil, LlavaForConditionalGeneration

    transformers.utils.logging.disable_progress_bar()
    placed: dict[str, Any] = {"device_map": {"": numerics.device}} if numerics.device != torch.device("cpu") else {}
    model = LlavaForConditionalGeneration.from_pretrained(
        folder, local_files_only=True, attn_implementation=numerics.attention, dtype=numerics.dtype, **placed
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    return Checkpoint(model.eval().requires_grad_(False), tokenizer, processor)
