"""Checkpoints that do not fit are one message; what the configuration says of vision features is honoured."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from pilot.backbone.backbone import Backbone
from pilot.backbone.checkpoint import read_checkpoint
from pilot.backbone.fitting import check_checkpoint
from pilot.backbone.loading import load_checkpoint
from pilot.backbone.numerics import Numerics
from pilot.backbone.random_llava import write_random_llava
from pilot.backbone.sources import INDEX, TINY_LLAVA
from pilot.config.load import load_profile
from pilot.config.model import RandomModel
from pilot.errors import UserError
from pilot.io.atomic import read_json

SIZE = RandomModel(
    text_layers=1, text_hidden=16, text_intermediate=16, text_heads=2, text_kv_heads=2, vocabulary=1304,
    max_positions=128, vision_layers=2, vision_hidden=8, vision_intermediate=8, vision_heads=2, image_size=28,
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded checkpoint in the hub's layout; nobody may change it."""
    folder = tmp_path_factory.mktemp("fitting") / "whole"
    write_random_llava(SIZE, folder, shard_bytes=20_000, dtype=torch.float32)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    """Set fields of a JSON file; `a__b` is field b of a."""

    def change(folder: Path) -> None:
        values = read_json(folder / name)
        for path, value in changes.items():
            *inside, field = path.split("__")
            target = values
            for part in inside:
                target = target[part]
            target[field] = value
        (folder / name).write_text(json.dumps(values))

    return change


def without(*names: str) -> Callable[[Path], None]:
    """Remove files."""
    return lambda folder: [(folder / name).unlink() for name in names] and None


def only_sentencepiece(folder: Path) -> None:
    """The tokenizer as Vicuna's own repository has it."""
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")


def first_shard(folder: Path) -> Path:
    """One of the files of weights."""
    return min(folder.glob("*.safetensors"))


CASES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no tokenizer": (without("tokenizer.json"), r"tokenizer\.json: missing: no tokenizer in this checkpoint"),
    "sentencepiece": (only_sentencepiece, r"found only tokenizer\.model.*pip install 'transformers<5' sentencepiece"),
    "no tokenizer config": (without("tokenizer_config.json"), r"tokenizer_config\.json: missing"),
    "no preprocessor": (
        without("preprocessor_config.json"),
        r"preprocessor_config\.json: missing: it defines the preprocessing",
    ),
    "other crop": (
        edit("preprocessor_config.json", crop_size={"height": 224, "width": 224}),
        r"preprocessor_config\.json: field crop_size: expected 28 pixels",
    ),
    "listed crop": (
        edit("preprocessor_config.json", crop_size=[28]),
        r"field crop_size: expected an integer or an object",
    ),
    "numbered shard": (edit(INDEX, weight_map={"a": 1}), r"index\.json: expected the field weight_map"),
    "no shard": (lambda f: first_shard(f).unlink(), r"00001-of-\d+\.safetensors: missing: 1 of \d+ files that"),
    "torn shard": (
        lambda f: first_shard(f).write_bytes(b"\x00" * 5),
        r"00001-of-\d+\.safetensors: incomplete or damaged",
    ),
    "empty index": (edit(INDEX, weight_map={}), r"index\.json: expected the field weight_map"),
    "torn index": (lambda f: (f / INDEX).write_text("{"), r"index\.json: cannot be read"),
    "torn config": (lambda f: (f / "config.json").write_text("{"), r"config\.json: cannot be read"),
    "another model": (
        edit("config.json", model_type="llava_next"),
        r"config\.json: field model_type: expected one of .*llava.*, got 'llava_next'.*docs/add-a-backbone\.md",
    ),
    "siglip": (
        edit("config.json", vision_config__model_type="siglip_vision_model"),
        r"field vision_config\.model_type: expected 'clip_vision_model'.* got 'siglip_vision_model'",
    ),
    "projector": (
        edit("config.json", projector_hidden_act="quick"),
        r"field projector_hidden_act: expected one of gelu",
    ),
    "quantised": (edit("config.json", quantization_config={"bits": 4}), r"field quantization_config"),
    "strategy": (edit("config.json", vision_feature_select_strategy="cls"), r"strategy: expected one of default, full"),
    "no such layer": (edit("config.json", vision_feature_layer=7), r"field vision_feature_layer: .* within -3\.\.2"),
    "no layers": (edit("config.json", vision_feature_layer=[]), r"field vision_feature_layer"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_one_message(folder: Path, case: str) -> None:
    change, message = CASES[case]
    check_checkpoint(folder)
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        check_checkpoint(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


def test_a_profile_with_such_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    text = Path("pipelines/profiles/llava.yaml").read_text().replace("device: cuda", "device: cpu")
    (tmp_path / "mine.yaml").write_text(text + f"backbone_path: {folder}\n")
    for lean in (True, False):
        with pytest.raises(UserError, match="preprocessor_config.json: missing"):
            load_checkpoint(load_profile(tmp_path / "mine.yaml"), Numerics(), lean=lean)


def test_shipped_and_nested_forms_fit(folder: Path) -> None:
    check_checkpoint(TINY_LLAVA)
    settings = read_json(folder / "preprocessor_config.json")
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    check_checkpoint(folder)
    assert read_checkpoint(folder, Numerics()).processor.crop_size["height"] == 28


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("multi_modal_projector.linear_2.bias"), "linear_2.bias is missing"),
        (lambda tensors: tensors.update({"language_model.model.extra.weight": torch.zeros(1)}), "is unexpected"),
        (lambda tensors: tensors.update({"multi_modal_projector.linear_2.bias": torch.zeros(3)}), "has another shape"),
    ],
)
def test_weights_of_another_checkpoint(folder: Path, change: Callable[[Any], Any], message: str) -> None:
    """transformers would draw, drop or keep them with a line in a log."""
    tensors = {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=message):
        read_checkpoint(folder, Numerics())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bos_token": None}, "field bos_token: missing or null, but prompts begin and end"),
        ({"eos_token": None}, "field eos_token"),
    ],
)
def test_tokenizers_without_begin_or_end(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit("tokenizer_config.json", **changes)(folder)
    with pytest.raises(UserError, match=message):
        read_checkpoint(folder, Numerics())


def test_tokenizer_of_a_larger_model(folder: Path) -> None:
    tokens = read_json(folder / "tokenizer.json")
    added = {"id": 1304, "content": "<more>", "single_word": False, "lstrip": False, "rstrip": False}
    tokens["added_tokens"].append(added | {"normalized": False, "special": True})
    tokens["model"]["vocab"]["<more>"] = 1304
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(UserError, match="expected ids below the model's vocab_size 1304, got 1304"):
        read_checkpoint(folder, Numerics())


@pytest.mark.parametrize(
    ("strategy", "layer", "shape"),
    [("default", -2, (4, 8)), ("full", -2, (5, 8)), ("default", [-2, -1], (4, 16)), ("full", [0, 1, 2], (5, 24))],
)
def test_vision_features_are_those_of_transformers(
    folder: Path, strategy: str, layer: int | list[int], shape: tuple[int, int]
) -> None:
    edit("config.json", vision_feature_select_strategy=strategy, vision_feature_layer=layer)(folder)
    tensors = {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    tensors["multi_modal_projector.linear_1.weight"] = torch.randn(16, shape[1])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    backbone = Backbone(
        read_checkpoint(folder, Numerics()), rank=2, alpha=4, prompt_template="USER: <image>\n{instruction} ASSISTANT:"
    )
    image = Image.new("RGB", (28, 28), (200, 30, 90))
    features_MND = backbone.image_features([image])
    assert backbone.feature_shape == tuple(features_MND.shape[1:]) == shape
    stock = LlavaForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    pixels = backbone.processor([image], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        theirs = stock.model.get_image_features(pixel_values=pixels).pooler_output
        torch.testing.assert_close(backbone.projector()(features_MND)[0], theirs[0])
