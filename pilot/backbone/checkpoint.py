"""A checkpoint in transformers' format: model, tokenizer and image processor, checked while they are loaded."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pilot.backbone.fitting import check_checkpoint
from pilot.backbone.numerics import Numerics
from pilot.errors import UserError


@dataclass(frozen=True)
class Checkpoint:
    """A frozen model of transformers on its device and in its dtype, with tokenizer and image processor."""

    model: Any
    tokenizer: Any
    processor: Any

    @property
    def whole(self) -> Any:
        """The model with its vision tower."""
        return self.model


def read_checkpoint(folder: Path, numerics: Numerics) -> Checkpoint:
    """Load a checkpoint in transformers' format; on a GPU without a second copy in host memory.

    Raises:
        UserError: the checkpoint does not fit (see `pilot.backbone.fitting`), or tensors are missing, unexpected or of
            other shapes than its configuration says.
    """
    family = check_checkpoint(folder)
    import transformers
    from transformers import AutoTokenizer

    transformers.utils.logging.disable_progress_bar()
    model_class, processor_class = family.classes()
    placed: dict[str, Any] = {"device_map": {"": numerics.device}} if numerics.device != torch.device("cpu") else {}
    loaded: Any = model_class.from_pretrained(
        folder, local_files_only=True, attn_implementation=numerics.attention, dtype=numerics.dtype,
        output_loading_info=True, ignore_mismatched_sizes=True, **placed,
    )  # fmt: skip
    model, info = loaded
    _check_loaded(folder, info)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    _check_tokens(folder, tokenizer, family.begin_token, model.config.text_config.vocab_size)
    processor = processor_class.from_pretrained(folder, local_files_only=True)
    return Checkpoint(model.eval().requires_grad_(False), tokenizer, processor)


def _check_loaded(folder: Path, info: Mapping[str, Collection[Any]]) -> None:
    """Refuse missing, unexpected or mismatched tensors, which transformers would initialise at random or drop."""
    kinds = {"missing_keys": "is missing", "unexpected_keys": "is unexpected", "mismatched_keys": "has another shape"}
    for kind, text in kinds.items():
        if names := sorted(str(each if isinstance(each, str) else each[0]) for each in info[kind]):
            raise UserError(
                f"{folder}: tensor {names[0]} {text} ({len(names)} in all): weights and config.json belong to "
                "different checkpoints. Download both again."
            )


def _check_tokens(folder: Path, tokenizer: Any, begin_token: bool, vocabulary: int) -> None:
    """Refuse a tokenizer without an end token, without a begin token if needed, or with ids beyond the vocabulary."""
    for name in ("bos_token", "eos_token") if begin_token else ("eos_token",):
        if getattr(tokenizer, f"{name}_id") is None:
            raise UserError(
                f"{folder / 'tokenizer_config.json'}: field {name}: missing or null, but prompts begin and end with "
                "these tokens. Add it."
            )
    largest = max(tokenizer.get_vocab().values())
    if largest >= vocabulary:
        raise UserError(
            f"{folder / 'tokenizer.json'}: expected ids below the model's vocab_size {vocabulary}, got {largest}. "
            "Copy the tokenizer that belongs to the weights."
        )
