"""Every field and every file of a checkpoint's configuration, damaged: it loads, or there is one message."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilot.backbone.checkpoint import read_checkpoint
from pilot.backbone.fitting import check_checkpoint
from pilot.backbone.loading import load_checkpoint
from pilot.backbone.numerics import Numerics
from pilot.backbone.random_model import write_random_model
from pilot.backbone.sources import TINY_LLAVA
from pilot.config.load import load_profile
from pilot.errors import UserError

from .test_families import RANDOM, size

FILES = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json")
MISSING = object()
DAMAGES = (None, [3], "3", 3, MISSING)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def paths(value: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all fields, those of objects as well."""
    for name, inside in value.items() if isinstance(value, dict) else ():
        yield (*before, name)
        yield from paths(inside, (*before, name))


def damaged(text: str, path: tuple[str, ...], damage: Any) -> str:
    """A file's text with another value in one place."""
    whole = json.loads(text)
    target = whole
    for name in path[:-1]:
        target = target[name]
    if damage is MISSING:
        del target[path[-1]]
    else:
        target[path[-1]] = damage
    return json.dumps(whole)


def without_sizes(name: str, path: tuple[str, ...], damage: Any) -> bool:
    """Whether transformers would make a model of its own default sizes, for which this machine is too small."""
    return name == "config.json" and path == ("text_config",) and damage in (None, MISSING)


def refused(folder: Path, load: Callable[[Path], object], every: bool) -> tuple[int, int]:
    """How many damaged checkpoints load, and how many are one message; one damage per field, or every."""
    counts, turn = [0, 0], 0
    for name in (each for each in FILES if (folder / each).is_file()):
        text = (folder / name).read_text()
        for path in paths(json.loads(text)):
            turn += 1
            for damage in DAMAGES if every else DAMAGES[turn % 5 :][:1]:
                if load is not check_checkpoint and without_sizes(name, path, damage):
                    continue
                (folder / name).write_text(damaged(text, path, damage))
                try:
                    load(folder)
                    counts[0] += 1
                except UserError as error:
                    assert str(folder) in str(error) and "\n" not in str(error), (name, path, damage)
                    counts[1] += 1
                except Exception as error:
                    raise AssertionError(f"{name}: {'.'.join(path)}: {damage!r}") from error
        (folder / name).write_text(text)
    return counts[0], counts[1]


def checkpoint(family: str, folder: Path) -> Path:
    """A checkpoint with random weights; tiny-llava's for LLaVA."""
    if family == "llava":
        return Path(shutil.copytree(TINY_LLAVA, folder))
    write_random_model(size(family), folder)
    return folder


def lean(folder: Path) -> object:
    """Load as training does."""
    profile = load_profile("smoke").model_copy(update={"backbone_path": str(folder)})
    return load_checkpoint(profile, Numerics(), lean=True)


@pytest.mark.slow
@pytest.mark.parametrize("family", RANDOM)
def test_every_field_is_checked(family: str, tmp_path: Path) -> None:
    whole, some = refused(checkpoint(family, tmp_path / "model"), check_checkpoint, every=family == "llava")
    assert whole > 30 and some >= 1


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("family", RANDOM)
def test_every_field_is_loaded(family: str, tmp_path: Path) -> None:
    """The checks leave most fields to transformers, which raises many kinds of errors."""
    folder = checkpoint(family, tmp_path / "model")
    whole, some = refused(folder, lambda each: read_checkpoint(each, Numerics()), every=False)
    assert whole > 10 and some > 10


@pytest.mark.slow
@pytest.mark.exhaustive
def test_every_field_is_loaded_as_training_does(tmp_path: Path) -> None:
    whole, some = refused(checkpoint("llava", tmp_path / "model"), lean, every=True)
    assert whole > 50 and some > 50


@pytest.mark.parametrize(
    ("name", "path", "damage", "said"),
    [
        ("preprocessor_config.json", ("size",), [96], r"field size: expected an integer or an object or null, got"),
        ("preprocessor_config.json", ("size",), "96", r"field size: .* got \"96\""),
        ("config.json", ("vision_config",), "clip", r"field vision_config: expected an object, got \"clip\""),
        ("config.json", ("vision_config", "num_hidden_layers"), "3", r"num_hidden_layers: expected an integer"),
        ("config.json", ("projector_hidden_act",), ["gelu"], r"projector_hidden_act: expected a text, got \[\"gelu\""),
    ],
)
def test_a_field_of_another_type_is_named(
    name: str, path: tuple[str, ...], damage: Any, said: str, tmp_path: Path
) -> None:
    folder = checkpoint("llava", tmp_path / "model")
    (folder / name).write_text(damaged((folder / name).read_text(), path, damage))
    with pytest.raises(UserError, match=rf"{name}: .*{said}"):
        check_checkpoint(folder)


@pytest.mark.parametrize("settings", [None, [], "x"])
def test_a_nested_image_processor_is_an_object(settings: Any, tmp_path: Path) -> None:
    folder = checkpoint("llava", tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    with pytest.raises(UserError, match=r"processor_config\.json: field image_processor: expected an object"):
        check_checkpoint(folder)


@pytest.mark.parametrize("load", [check_checkpoint, lean, lambda folder: read_checkpoint(folder, Numerics())])
@pytest.mark.parametrize(
    ("content", "said"),
    [("", "the file is empty"), (POINTER, "Git LFS pointer"), ('{"version": "1.0", "a', "cut off"), ("[]", "")],
)
def test_files_that_are_no_json_are_named(
    load: Callable[[Path], object], content: str, said: str, tmp_path: Path
) -> None:
    folder = checkpoint("llava", tmp_path / "model")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(content)
        with pytest.raises(UserError, match=rf"{name}: .*{said}"):
            load(folder)
        (folder / name).write_text(text)
