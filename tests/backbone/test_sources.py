"""Where a profile's checkpoint is, what is refused, and which digest a run records."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pilot.backbone.sources import TINY_LLAVA, backbone_digest, checkpoint_folder, folder_digest
from pilot.config.load import load_profile
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.io.digest import sha256_file


def profile(name: str = "llava", **changes: Any) -> Profile:
    """A shipped profile with fields replaced."""
    return Profile.model_validate(load_profile(name).model_dump() | changes)


def checkpoint(folder: Path, value: float = 0.0) -> Path:
    """Files named as those of a sharded checkpoint."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text("{}")
    for shard in (1, 2):
        save_file({"x": torch.tensor([value, shard])}, folder / f"model-0000{shard}-of-00002.safetensors")
    return folder


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`PILOT_MODELS`, empty at first."""
    monkeypatch.setenv("PILOT_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_hub_without_a_pinned_revision_is_refused() -> None:
    message = r"profile llava: field revision: expected the 40 hex.*commits/main, .*PILOT_MODELS/llava-1.5-7b"
    with pytest.raises(UserError, match=message):
        checkpoint_folder(profile())
    with pytest.raises(ValueError, match="revision"):
        profile(revision="main")


def test_hub_that_cannot_be_reached_is_one_message() -> None:
    """Tests run offline, so a pinned revision is looked for in the local cache, and is not there."""
    with pytest.raises(UserError, match=r"llava-hf/llava-1.5-7b-hf at revision a{40}: download failed"):
        checkpoint_folder(profile(revision="a" * 40))


def test_local_folders_need_no_revision(tmp_path: Path, models: Path) -> None:
    named = checkpoint(tmp_path / "mine")
    assert checkpoint_folder(profile(backbone_path=str(named))) == named
    by_name = checkpoint(models / "llava-1.5-7b")
    assert checkpoint_folder(profile()) == by_name
    (named / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"field backbone_path: .*mine: no checkpoint here \(model.safetensors or"):
        checkpoint_folder(profile(backbone_path=str(named)))


@pytest.mark.parametrize("path", ["./nowhere", "../nowhere", "~/nowhere", "/nowhere"])
def test_a_path_is_never_a_name_of_the_hub(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"field backbone: .*/nowhere: no checkpoint here"):
        checkpoint_folder(profile(backbone=path))
    with pytest.raises(UserError, match=r"field revision: .*of some/where, got none"):
        checkpoint_folder(profile(backbone="some/where"))


def test_digest_covers_every_shard(tmp_path: Path) -> None:
    first, same, other = (folder_digest(checkpoint(tmp_path / n, v)) for n, v in (("a", 0), ("b", 0), ("c", 1)))
    assert first == same != other
    assert backbone_digest(load_profile("embedded")) == sha256_file(TINY_LLAVA / "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json", "chat_template.jinja"])
def test_digest_covers_what_prompts_and_pixels_depend_on(tmp_path: Path, name: str) -> None:
    """As it was found: with another `image_mean` the features were taken for current."""
    folder = checkpoint(tmp_path / "mine")
    without = folder_digest(folder)
    (folder / "README.md").write_text("changes nothing")
    assert folder_digest(folder) == without
    (folder / name).write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    first = folder_digest(folder)
    (folder / name).write_text('{"image_mean": [0.4, 0.5, 0.5]}')
    assert len({without, first, folder_digest(folder)}) == 3


def test_digest_of_random_weights_follows_from_their_size() -> None:
    small, larger = ({"text_layers": layers} for layers in (2, 3))
    digests = {
        backbone_digest(profile("llava-random", architecture=values | {"materialise": on_disk}))
        for values in (small, larger)
        for on_disk in (True, False)
    }
    assert len(digests) == 2
    with pytest.raises(ValueError, match="architecture: expected for backbones with random weights"):
        profile(architecture=small)


def test_unknown_backbone() -> None:
    with pytest.raises(UserError, match="field backbone: unknown name 'llava'.*one of: .*llava-1.5-7b, .*llava-random"):
        checkpoint_folder(profile(backbone="llava"))


def test_a_home_folder_of_nobody_is_one_message() -> None:
    for changes in ({"backbone_path": "~nosuchuser/x"}, {"backbone": "~nosuchuser/x"}):
        with pytest.raises(UserError, match="~nosuchuser/x: .* home directory.* Write the whole path"):
            checkpoint_folder(profile(**changes))
