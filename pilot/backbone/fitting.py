"""Compatibility checks of a checkpoint before any weight is read; the first problem is reported in one message.

A checkpoint's `model_type` names its family, which says what else must hold. The checks read JSON files and the headers
of safetensors files only.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pilot.backbone.families.base import Family
from pilot.backbone.families.fields import FieldError
from pilot.backbone.families.table import family_of
from pilot.backbone.sources import INDEX, WEIGHTS
from pilot.errors import UserError
from pilot.io.text import decode, parse_json

Problem = tuple[str, str]
"""Name of a file, and a text that says what is wrong with it and what to do."""

_NO_PROCESSOR = "missing: it defines the preprocessing of images. Copy it from the weights' source"
CONVERT = (
    "found only tokenizer.model, which is in SentencePiece's format. Convert it once, in a separate environment with "
    "`pip install 'transformers<5' sentencepiece protobuf` (version 5 loses the space before a text): "
    'python -c "from transformers import AutoTokenizer; '
    "AutoTokenizer.from_pretrained('FOLDER').save_pretrained('FOLDER')\""
)


def check_checkpoint(folder: Path) -> type[Family]:
    """Check a checkpoint's configuration, tokenizer, image processor and list of weights; return its family.

    Raises:
        UserError: something is missing, unreadable, or of another architecture; names the file and what to do.
    """
    config, problem = _read(folder, "config.json")
    if problem:
        raise UserError(f"{folder / problem[0]}: {problem[1]}.")
    family = family_of(config.get("model_type"), str(folder / "config.json"))
    for name, text in _problems(folder, family, config):
        raise UserError(f"{folder / name}: {text}.")
    return family


def _problems(folder: Path, family: type[Family], config: Mapping[str, Any]) -> Iterator[Problem]:
    if (found := config.get("quantization_config")) is not None:
        yield "config.json", f"field quantization_config: expected weights that are not quantised, got {found!r}"
    yield from _checked("config.json", family.problems(config))
    yield from _tokenizer(folder)
    yield from _processor(folder, family, config)
    yield from _weights(folder)


def _checked(name: str, problems: Iterator[str]) -> Iterator[Problem]:
    """Yield the problems of a file; a field of another type is one."""
    try:
        for text in problems:
            yield name, text
    except FieldError as error:
        yield name, f"{error}. Copy the file from the checkpoint's source again"


def _read(folder: Path, name: str) -> tuple[Mapping[str, Any], Problem | None]:
    """Read a JSON object; return it, or an empty one with the problem of its file."""
    try:
        value = parse_json(decode((folder / name).read_bytes()))
    except (OSError, ValueError) as error:
        return {}, (name, f"cannot be read ({error}). Copy it from the checkpoint's source again")
    return (value, None) if isinstance(value, dict) else ({}, (name, "expected a JSON object"))


def _tokenizer(folder: Path) -> Iterator[Problem]:
    name = "tokenizer.json"
    if (folder / name).is_file():
        yield from _vocabulary(folder, name)
    elif (folder / "tokenizer.model").is_file():
        yield name, f"missing; {CONVERT.replace('FOLDER', str(folder))}"
    else:
        yield name, "missing: no tokenizer in this checkpoint. Copy it from the weights' source"
    if not (folder / "tokenizer_config.json").is_file():
        yield "tokenizer_config.json", "missing. Copy it from the weights' source"
        return
    _, problem = _read(folder, "tokenizer_config.json")
    if problem:
        yield problem


def _vocabulary(folder: Path, name: str) -> Iterator[Problem]:
    """Yield why the library of fast tokenizers cannot read a file; it raises plain exceptions."""
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(folder / name))
    except Exception as error:
        _, problem = _read(folder, name)
        yield problem or (name, f"not a tokenizer ({error}). Copy it from the checkpoint's source again")


def _processor(folder: Path, family: type[Family], config: Mapping[str, Any]) -> Iterator[Problem]:
    name, nested = "preprocessor_config.json", "processor_config.json"
    if (folder / name).is_file():
        settings, problem = _read(folder, name)
    elif (folder / nested).is_file():
        name = nested
        settings, problem = _read(folder, name)
        if not problem and "image_processor" in settings:
            settings = settings["image_processor"]
            if not isinstance(settings, dict):
                problem = name, "field image_processor: expected an object. Copy it from the weights' source"
        elif not problem:
            problem = "preprocessor_config.json", _NO_PROCESSOR
    else:
        settings, problem = {}, (name, _NO_PROCESSOR)
    if problem:
        yield problem
        return
    yield from _checked(name, family.processor_problems(config, settings))


def _weights(folder: Path) -> Iterator[Problem]:
    files = [WEIGHTS]
    if not (folder / WEIGHTS).is_file():
        index, problem = _read(folder, INDEX)
        if problem:
            yield problem
            return
        places = index.get("weight_map")
        if not isinstance(places, dict) or not places or not all(isinstance(each, str) for each in places.values()):
            yield INDEX, "expected the field weight_map with a file for every tensor"
            return
        files = sorted(set(places.values()))
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        yield missing[0], f"missing: {len(missing)} of {len(files)} files that {INDEX} names. Download them again"
        return
    for name in files:
        yield from _tensors(folder, name)


def _tensors(folder: Path, name: str) -> Iterator[Problem]:
    """Yield the problems of one weights file, found in its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / name, framework="np") as file:
            file.keys()
    except (OSError, SafetensorError) as error:
        yield name, f"incomplete or damaged safetensors file ({error}). Download it again"
        return
