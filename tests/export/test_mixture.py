"""Models with several connectors: what was exported loads with this package and computes what the run's model does."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from pilot.errors import UserError
from pilot.export import ExportedModel, load
from pilot.export.mixture import CONFIG, WEIGHTS
from pilot.export.write import export_model
from pilot.io.atomic import read_json, write_json

from ..marks import few_of
from ..small import Small
from .compare import asked, own_answers, own_logits, run_model

MODELS = [("pilot", 3), ("pilot", 4), ("fedmoe", 0), ("fedmoe", 5), ("feddat", 2), ("fedalt", 1), ("disco", 5)]
MORE = [("fedlease", 4), ("feddpa", 3)]


@pytest.fixture(scope="module")
def folder(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Client 3's model of Pilot; nobody may change it."""
    return export_model(small.run("pilot"), 3, tmp_path_factory.mktemp("pilot") / "model")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "client"), few_of(MODELS, MORE))
def test_equal_to_the_runs_model(small: Small, method: str, client: int, tmp_path: Path) -> None:
    """Bit for bit: the same code on the same numbers."""
    loaded = load(export_model(small.run(method), client, tmp_path / "model"))
    assert isinstance(loaded, ExportedModel) and loaded.description["client"]["client"] == client
    backbone, own = run_model(small, method, client)
    pairs = asked(small)
    for image, instruction in pairs:
        ours = own_logits(backbone, own, image, instruction)
        assert torch.equal(own_logits(loaded.backbone, loaded.model, image, instruction), ours)
    answers = loaded.answer([image for image, _ in pairs], [text for _, text in pairs], 24)
    assert answers == own_answers(backbone, own, pairs) and len(set(answers)) > 1


def test_folder_holds_no_code(folder: Path) -> None:
    assert {path.suffix for path in folder.iterdir()} == {".json", ".jinja", ".md", ".safetensors", ".sha256"}
    description = read_json(folder / CONFIG)
    assert (description["format"], description["version"], description["method"]) == ("pilot-bench model", 1, "pilot")
    assert description["client"] == {
        "client": 3, "task": "scene-caption", "tasks": ["scene-vqa", "scene-caption", "scene-ground"], "seed": 0,
    }  # fmt: skip
    assert description["profile"]["lora"] == {"rank": 8, "alpha": 16.0}


def test_images_and_instructions_go_together(folder: Path) -> None:
    with pytest.raises(ValueError, match="as many images as instructions, got 1 and 2"):
        load(folder).answer([Image.new("RGB", (8, 8))], ["What?", "Who?"])


def changed(folder: Path, target: Path, **fields: object) -> Path:
    """A copy with other fields in its description."""
    shutil.copytree(folder, target)
    write_json(target / CONFIG, read_json(target / CONFIG) | fields)
    return target


def test_wrong_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{CONFIG}: missing. Give a folder that `pilot-bench export` wrote"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"field version: this package reads version 1, got 2\. Use the package"):
        load(changed(folder, tmp_path / "later", version=2))
    with pytest.raises(UserError, match=r"field format: expected 'pilot-bench model'"):
        load(changed(folder, tmp_path / "other", format="llava"))
    with pytest.raises(UserError, match=r"trained on another tiny-llava \(sha256 expected 000000000000, found"):
        load(changed(folder, tmp_path / "base", backbone_digest="0" * 64))
    with pytest.raises(
        UserError, match=r"pilot_model.safetensors: the sha256 differs from field weights_digest of pilot_model.json"
    ):
        load(changed(folder, tmp_path / "weights", weights_digest="0" * 64))


def test_weights_of_another_client_do_not_fit(folder: Path, tmp_path: Path) -> None:
    """Client 3 has peers 0 and 2; as client 0 it would have 1 and 2."""
    client = read_json(folder / CONFIG)["client"] | {"task": "scene-vqa"}
    with pytest.raises(UserError, match=r"payload does not fit the client's model: .*Use the package version"):
        load(changed(folder, tmp_path / "model", client=client))


def test_damage_is_found(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (tmp_path / "model" / WEIGHTS).write_bytes(bytes(data))
    with pytest.raises(UserError, match="checkpoint is damaged"):
        load(tmp_path / "model")


def test_missing_tensor(folder: Path, tmp_path: Path) -> None:
    """Fewer tensors under a digest of their own: nothing stays at its initial value unnoticed."""
    from pilot.io.checkpoint import load_state, save_state

    target = changed(folder, tmp_path / "model")
    state = load_state(target / WEIGHTS)
    state.pop("router.weight")
    digest = save_state(target / WEIGHTS, state)
    write_json(target / CONFIG, json.loads((target / CONFIG).read_text()) | {"weights_digest": digest})
    with pytest.raises(UserError, match="1 tensors are missing, first router.weight"):
        load(target)
