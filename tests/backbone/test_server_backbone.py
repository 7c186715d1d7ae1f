"""A server's backbone equals the whole one in what a plan takes from it, and holds no weight of the LLM."""

from pathlib import Path

import pytest
import torch

from pilot.backbone.backbone import Backbone
from pilot.backbone.families.table import FAMILIES
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.random_model import write_random_model
from pilot.backbone.server_backbone import ServerBackbone, load_server_backbone
from pilot.config.load import load_profile
from pilot.config.profile import Profile
from pilot.errors import UserError

from .test_families import RANDOM, size


def profile_of(folder: Path, family: str) -> Profile:
    """A profile with a checkpoint of random weights as its backbone."""
    write_random_model(size(family), folder)
    own = {"name": "own", "backbone_path": str(folder), "box_frame": "original"}
    return load_profile("smoke").model_copy(update=own)


def assert_equal(server: ServerBackbone, whole: Backbone) -> None:
    """Compare what a plan takes."""
    for own, other in zip(server.projector().parameters(), whole.projector().parameters(), strict=True):
        assert torch.equal(own, other) and own.dtype == torch.float32 and not own.requires_grad
    assert server.width == whole.width
    assert server.num_language_parameters == whole.num_language_parameters
    first, second = server.initial_adapter(3), whole.initial_adapter(3)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert all(parameter.is_meta for parameter in server.text_adapter.values())


@pytest.mark.parametrize("family", RANDOM)
def test_a_checkpoint_of_each_family(family: str, tmp_path: Path) -> None:
    profile = profile_of(tmp_path / "model", family)
    server = load_server_backbone(profile, weights=False)
    assert isinstance(server, ServerBackbone)
    assert_equal(server, load_backbone(profile))


def test_the_backbone_that_ships() -> None:
    profile = load_profile("smoke")
    server = load_server_backbone(profile, weights=False)
    assert isinstance(server, ServerBackbone)
    assert_equal(server, load_backbone(profile))


def test_weights_are_read_where_a_method_starts_from_them() -> None:
    server = load_server_backbone(load_profile("smoke"), weights=True)
    assert isinstance(server, Backbone) and server.initial_language_state()
    shapes = load_server_backbone(load_profile("smoke"), weights=False)
    with pytest.raises(ValueError, match="no singular values"):
        shapes.initial_adapter(0, from_weights=True)
    with pytest.raises(ValueError, match="no language parameters"):
        shapes.initial_language_state()


def test_a_frame_of_boxes_is_asked_for(tmp_path: Path) -> None:
    other = next(name for name in sorted(FAMILIES) if name in RANDOM and name != "llava")
    profile = profile_of(tmp_path / "model", other).model_copy(update={"box_frame": None})
    with pytest.raises(UserError, match="field box_frame"):
        load_server_backbone(profile, weights=False)
