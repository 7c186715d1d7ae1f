"""The checkpoint that ships: it is what its recipe recorded, it is small, and it sees."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from pilot.backbone.sources import TINY_LLAVA
from pilot.data.scenes.scene import Item
from pilot.io.atomic import read_json
from pilot.pretraining.architecture import image_processor, load_parts
from pilot.pretraining.quality import _stated_iou, measure_held_out
from pilot.pretraining.recipe import PhaseRecipe, Recipe
from pilot.pretraining.step import learning_rate_at
from pilot.pretraining.verify import check_files


def test_files_are_as_recorded(tmp_path: Path) -> None:
    assert check_files() == ""
    copy = Path(shutil.copytree(TINY_LLAVA, tmp_path / "copy"))
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    assert check_files(copy).endswith("model.safetensors: sha256 differs from recipe.json")
    (copy / "model.safetensors").unlink()
    assert check_files(copy).endswith("model.safetensors: missing")
    assert check_files(tmp_path / "none").endswith("none/recipe.json: missing")


def test_everything_is_listed_and_small() -> None:
    files = {path.name: path.stat().st_size for path in TINY_LLAVA.iterdir()}
    assert set(files) == {*read_json(TINY_LLAVA / "recipe.json")["files"], "recipe.json"}
    assert {"model.safetensors", "tokenizer.json", "config.json", "preprocessor_config.json"} <= set(files)
    assert sum(files.values()) < 8_000_000


def test_it_sees() -> None:
    """The recorded quality on unseen public scenes. Fails while a stand-in takes the real checkpoint's place."""
    quality = read_json(TINY_LLAVA / "recipe.json")["quality"]
    assert quality["object_f1"] >= 0.90
    assert quality["extent_iou"] >= 0.60


def test_recipe_is_current() -> None:
    """The code and numbers of today are those that made the checkpoint. Fails with a stand-in, as above."""
    assert read_json(TINY_LLAVA / "recipe.json")["recipe_digest"] == Recipe().digest()


@pytest.mark.slow
def test_recorded_quality_is_the_measured_one() -> None:
    torch.set_num_threads(1)
    recipe, tokenizer = Recipe(), AutoTokenizer.from_pretrained(TINY_LLAVA, local_files_only=True)
    recorded = read_json(TINY_LLAVA / "recipe.json")["quality"]
    measured = measure_held_out(load_parts(recipe, TINY_LLAVA), tokenizer, recipe, image_processor(recipe))
    assert measured == pytest.approx(recorded, abs=0.01)


def test_learning_rates_of_pretraining() -> None:
    """3 % of 100 steps up to 2; then a cosine down to a tenth: half-way (1 + 0.1) / 2 of the peak."""
    phase = PhaseRecipe(steps=103, batch_size=1, learning_rate=2.0)
    assert [learning_rate_at(step, phase) for step in range(4)] == pytest.approx([2 / 3, 4 / 3, 2.0, 2.0])
    assert learning_rate_at(53, phase) == pytest.approx(1.1)
    assert learning_rate_at(103, phase) == pytest.approx(0.2)


def test_stated_extents() -> None:
    """Box (8, 16, 40, 48) of 80 pixels is x10-50 y20-60. Half of it overlaps 1600 / 2; what cannot be read counts 0."""
    item = Item("object", "dog", (8, 16, 40, 48))
    assert _stated_iou("x10-50 y20-60", item) == 1.0
    assert _stated_iou("x10-30 y20-60.", item) == 0.5
    assert _stated_iou("x60-90 y20-60.", item) == 0.0
    assert _stated_iou("somewhere", item) == 0.0
