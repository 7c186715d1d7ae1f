"""A checkpoint in transformers' format: model, tokenizer and image processor, checked while they are loaded."""

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pilot.backbone.families.base import Family, MetaCheckpoint
from pilot.backbone.families.fields import loading
from pilot.backbone.fitting import check_checkpoint
from pilot.backbone.numerics import Numerics
from pilot.errors import UserError
from pilot.io.atomic import read_json


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


def read_checkpoint(folder: Path, numerics: Numerics, *, connector_only: bool = False) -> Checkpoint:
    """Load a checkpoint in transformers' format; on a GPU without a second copy in host memory.

    With `connector_only` all other weights stay in the checkpoint's files: their parameters are on the meta device.

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
    if connector_only:
        with loading(f"{folder}: config.json"):
            skeleton = MetaCheckpoint.of(family, read_json(folder / "config.json")).model
        placed = {"device_map": _connector_alone(skeleton, family)}
    with _no_word_about_offloading(), loading(f"{folder}: model"):
        loaded: Any = model_class.from_pretrained(
            folder, local_files_only=True, attn_implementation=numerics.attention, dtype=numerics.dtype,
            output_loading_info=True, ignore_mismatched_sizes=True, **placed,
        )  # fmt: skip
    model, info = loaded
    _check_loaded(folder, info)
    with loading(f"{folder}: tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        _check_tokens(folder, tokenizer, family.begin_token, model.config.text_config.vocab_size)
    with loading(f"{folder}: image processor"):
        processor = processor_class.from_pretrained(folder, local_files_only=True)
    return Checkpoint(model.eval().requires_grad_(False), tokenizer, processor)


@contextmanager
def _no_word_about_offloading() -> Iterator[None]:
    """Keep accelerate from saying that parameters stay on disk, which is asked for."""
    logger = logging.getLogger("accelerate.big_modeling")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The following device_map keys do not match any submodules")
            yield
    finally:
        logger.setLevel(before)


def _connector_alone(model: nn.Module, family: type[Family]) -> dict[str, str]:
    """Return a device map that reads the connector only; whatever else a model has stays on disk."""
    wanted = set(family.connector)
    around = {".".join(path.split(".")[:depth]) for path in wanted for depth in range(path.count(".") + 1)}
    found: dict[str, str] = {}
    for path in around:
        module = model.get_submodule(path)
        parts = [name for name, _ in (*module.named_children(), *module.named_parameters(recurse=False))]
        names = {f"{path}.{name}".removeprefix(".") for name in parts} - around
        found |= {name: "cpu" if name in wanted else "disk" for name in names}
    return found


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
