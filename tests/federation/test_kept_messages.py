"""Kept messages are what passed, and a run has the same bytes with and without them."""

from pathlib import Path

import pytest
import torch

from pilot.config.load import load_profile
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.federation.checkpoint import load_last
from pilot.federation.kept_messages import FOLDER, read_messages
from pilot.federation.spec import RunSpec
from pilot.federation.training import train_run
from pilot.io.layout import run_folder

from ..marks import few_of
from ..small import Small, contents, quiet


def test_they_change_no_digest_of_a_profile() -> None:
    profile = load_profile("smoke+recorded")
    assert profile.kept_rounds == (1, 2, 2) and "keep_messages" not in profile.model_dump()
    assert load_profile("embedded+recorded-noise-1").kept_rounds == (1, 2, 12)
    with pytest.raises(ValueError, match=r"keep_messages: expected rounds of at most rounds \(2\), got 3"):
        Profile.model_validate(profile.model_dump() | {"keep_messages": [3]})


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of(["fedavg"], ["pilot", "fedmoe", "scaffold"]))
def test_a_run_that_keeps_messages(small: Small, tmp_path: Path, method: str) -> None:
    spec = small.spec(method)
    kept = RunSpec(spec.scenario, spec.profile.model_copy(update={"keep_messages": ("last",)}), method, spec.seed)
    train_run(kept, small.folder, tmp_path / "kept", True, quiet)
    plain = contents(small.run(method))
    files = contents(tmp_path / "kept")
    assert {name: data for name, data in files.items() if not name.startswith(FOLDER)} == plain
    messages = read_messages(tmp_path / "kept")
    assert [each.update.client for each in messages] == list(range(6))
    assert {each.round_number for each in messages} == {2}
    if method == "fedavg":
        weights = [each.update.num_examples for each in messages]
        name = "connector.linear_1.weight"
        parts = [each.update.state[name].double() * count for each, count in zip(messages, weights, strict=True)]
        server = load_last(tmp_path / "kept" / "checkpoint").server.shared[name]
        assert torch.allclose(torch.stack(parts).sum(0) / sum(weights), server.double(), atol=1e-7)
        path = tmp_path / "kept" / FOLDER / "r2p0" / "client-3.up.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(UserError, match="client-3.up.safetensors: checkpoint is damaged"):
            read_messages(tmp_path / "kept")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_killed_run_keeps_them_too(small: Small, tmp_path: Path) -> None:
    """What was written before a kill is written again, with the same bytes."""
    spec = small.spec("pilot")
    kept = RunSpec(spec.scenario, spec.profile.model_copy(update={"keep_messages": (1, 2)}), "pilot", 0)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_run(kept, small.folder, whole, True, quiet)

    def kill(done: int, total: int) -> None:
        if done > 0.7 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(kept, small.folder, killed, True, kill)
    train_run(kept, small.folder, killed, True, quiet)
    assert contents(killed) == contents(whole)
    assert run_folder(small.folder, "pilot", 0) not in (whole, killed)
