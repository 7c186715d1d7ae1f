"""Trackers: what they are told while a run trains and when it is scored; a run is the same with and without them.

Modules stand in for trackers that are not installed; `test_real_trackers` takes those that are.
"""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pilot.config.files import PACKAGED
from pilot.config.load import load_profile
from pilot.config.profile import TrackerName
from pilot.io.atomic import read_jsonl
from pilot.provenance import backbone_settings_digest, profile_digest, tuning_digest
from pilot.report.tensorboard import FILE
from pilot.report.trackers import TRACKERS
from pilot.report.tracking import Tracking, round_values, track, track_scores
from pilot.runs.train import train_method

from ..small import Small, quiet


class FakeTrackio:
    """What is used of trackio; every call is written down."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def init(self, **options: Any) -> SimpleNamespace:
        self.calls.append(("init", options))
        return SimpleNamespace(log=self.log, finish=lambda: self.calls.append(("finish", None)))

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append(("log", (step, values)))

    def steps(self) -> list[int]:
        return [value[0] for name, value in self.calls if name == "log"]


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> FakeTrackio:
    fake = FakeTrackio()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return fake


@pytest.fixture
def run(scenario_copy: Path) -> Path:
    """A run of Pilot: three rounds, of which the first has two phases."""
    return scenario_copy / "runs" / "pilot" / "seed1"


def rewind(run: Path, rounds: int) -> None:
    """The file of rounds as it was after so many of them."""
    lines = (run / "rounds.jsonl").read_text().splitlines(keepends=True)
    (run / "rounds.jsonl").write_text("".join(line for line in lines if json.loads(line)["round"] <= rounds))


def test_the_profile_names_known_trackers() -> None:
    assert set(TRACKERS) == {*TrackerName.__args__}  # type: ignore[attr-defined]


def test_values_of_a_round_by_hand(run: Path) -> None:
    values = round_values(run)
    assert list(values) == [1, 2, 3]
    first = [line for line in read_jsonl(run / "rounds.jsonl", {}) if line["round"] == 1 and line["phase"] == "stage1"]
    losses = [loss for client in first[0]["clients"] for loss in client["losses"]["cross_entropy"]]
    assert values[1]["loss/cross_entropy/stage1"] == pytest.approx(sum(losses) / len(losses)) and len(losses) == 36
    # Nine clients send 400,000 + 100,000 + 100,000 bytes; twice in round 1.
    assert [values[number]["bytes/up"] for number in values] == [10_800_000, 5_400_000, 5_400_000]
    assert values[3]["time/wall_seconds"] == 61.5 and "time/wall_seconds" not in values[2]
    assert "eval/scene-ground/acc_0.5_original_/personalised/mean" in values[3]
    assert not [tag for each in values.values() for tag in each if "client-" in tag]


def test_bytes_of_a_run_in_training_are_its_checkpoints(run: Path) -> None:
    expected = round_values(run)
    (run / "checkpoint/round-3").mkdir(parents=True)
    ledger = json.loads((run / "ledger.json").read_text())
    (run / "checkpoint/round-3/history.json").write_text(json.dumps({"ledger": ledger}) + "\n")
    (run / "ledger.json").unlink()
    assert round_values(run) == expected


def test_each_round_is_told_once(run: Path, trackio: FakeTrackio) -> None:
    whole = (run / "rounds.jsonl").read_text()
    (run / "rounds.jsonl").unlink()
    with track(run, ["trackio"]) as update:
        update()
        for rounds in (1, 2):
            (run / "rounds.jsonl").write_text(whole)
            rewind(run, rounds)
            update()
            update()
    assert trackio.steps() == [1, 2]
    with track(run, ["trackio"]) as update:  # resumed
        (run / "rounds.jsonl").write_text(whole)
    assert trackio.steps() == [1, 2, 3]
    begun = [options for name, options in trackio.calls if name == "init"]
    assert len(begun) == 2 and begun[0]["name"] == begun[1]["name"] and begun[0]["group"] == "embedded/scenario2"
    assert begun[0]["config"] == json.loads((run / "config.json").read_text())
    assert [name for name, _ in trackio.calls].count("finish") == 2


def test_scores_go_where_the_rounds_went(run: Path, trackio: FakeTrackio) -> None:
    track_scores([run])
    assert trackio.calls == [], "nothing was asked for"
    tracking = Tracking(run, ["trackio"])
    (run / "rounds.jsonl").write_text((run / "rounds.jsonl").read_text())
    tracking.update()
    del trackio.calls[:]
    track_scores([run])
    ((step, values),) = [value for name, value in trackio.calls if name == "log"]
    assert step == 3 and values and all(tag.startswith("eval/") for tag in values)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_missing_tracker_is_one_warning(
    name: str, run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    whole = (run / "rounds.jsonl").read_text()
    with track(run, [name, "tensorboard"]) as update:
        for rounds in (1, 2, 3):
            (run / "rounds.jsonl").write_text(whole)
            rewind(run, rounds)
            update()
    said = capfd.readouterr().err
    assert said.count("warning") == 1 and f"tracking: {name}: failed" in said and f"pip install {name}" in said
    assert (run.parents[2] / "tensorboard/pilot/seed1" / FILE).is_file(), "the other one goes on"


def test_a_failing_tracker_is_one_warning(
    run: Path, trackio: FakeTrackio, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(values: dict[str, float], step: int) -> None:
        raise ConnectionError("no\nserver")

    monkeypatch.setattr(trackio, "log", fail)
    (run / "rounds.jsonl").rename(run / "later")
    with track(run, ["trackio"]) as update:
        (run / "later").rename(run / "rounds.jsonl")
        update()
    said = capfd.readouterr().err
    assert said == "warning: tracking: trackio: failed (ConnectionError: no server). The run goes on without it.\n"


def test_digests_do_not_depend_on_it(tmp_path: Path) -> None:
    shipped = str(PACKAGED / "profiles/smoke.yaml")
    file = tmp_path / "smoke.yaml"
    file.write_text(Path(shipped).read_text() + "tracking: [mlflow, wandb]\n")
    assert load_profile(file).tracking == ("mlflow", "wandb") == load_profile(f"{file}+rounds-3").tracking
    assert load_profile(file).model_dump() == load_profile(shipped).model_dump()
    for digest in (tuning_digest, profile_digest):
        assert digest(str(file), "pilot") == digest(shipped, "pilot")
    assert backbone_settings_digest(str(file)) == backbone_settings_digest(shipped)


@pytest.mark.slow
def test_a_tracked_run_has_the_same_bytes(small: Small, tmp_path: Path, trackio: FakeTrackio) -> None:
    results, profile = tmp_path / "results", tmp_path / "tiny.yaml"
    shutil.copytree(small.folder, results / "tiny/small", ignore=shutil.ignore_patterns("runs"))
    profile.write_text(small.profile_file.read_text() + "tracking: [trackio]\n")
    tracked = train_method(str(small.scenario_file), str(profile), "fedavg", 0, results, True, quiet, track=track)
    assert trackio.steps() == [1, 2]
    expected = small.run("fedavg")
    for name in ("config.json", "rounds.jsonl", "ledger.json", "manifest.json"):
        assert (tracked / name).read_bytes() == (expected / name).read_bytes(), name
    assert {path.name for path in tracked.iterdir()} <= {path.name for path in expected.iterdir()}


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_real_trackers(name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are installed, without network."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    for variable, value in (("WANDB_MODE", "offline"), ("TRACKIO_DIR", "t"), ("MLFLOW_TRACKING_URI", "sqlite:///m.db")):
        monkeypatch.setenv(variable, value)
    warnings: list[str] = []
    tracking = Tracking(run, [name], warnings.append)
    (run / "rounds.jsonl").write_text((run / "rounds.jsonl").read_text())
    tracking.update()
    tracking.score()
    tracking.close()
    assert warnings == [] and tracking.names == [name]
