"""Whole runs with the profile's section `federation`: drop-out, faults, defences, noise."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.federation.assemble import make_plan
from pilot.federation.checkpoint import load_progress
from pilot.federation.spec import RunSpec
from pilot.federation.training import client_models, train_run
from pilot.io.atomic import read_json, read_jsonl
from pilot.io.checkpoint import load_state
from pilot.methods.base import State

from ..marks import few_of
from ..small import Small, contents, quiet

pytestmark = pytest.mark.slow


def spec_of(small: Small, method: str, federation: dict[str, Any], rounds: int = 2) -> RunSpec:
    """A run of the small scenario with other settings."""
    values = small.profile.model_dump() | {"federation": federation, "rounds": rounds}
    return RunSpec(small.scenario, Profile.model_validate(values), method, 0)


def train(small: Small, target: Path, method: str, federation: dict[str, Any], rounds: int = 2) -> State:
    """Train; returns the server's shared tensors."""
    train_run(spec_of(small, method, federation, rounds), small.folder, target, False, quiet)
    progress = load_progress(target / "checkpoint", None)
    assert progress is not None
    return dict(progress.server.shared)


def equal(a: State, b: State) -> bool:
    """Same names, same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def attack(kind: str, client: int = 1) -> dict[str, Any]:
    """One faulty client."""
    return {"attacks": [{"kind": kind, "clients": [client]}]}


@pytest.mark.parametrize("method", ["pilot", "fedavg", "fedprox", "fedmoe"])
def test_half_of_the_clients_miss_rounds(small: Small, tmp_path: Path, method: str) -> None:
    """The schedule is written down and kept to; every client still has a model; the same again gives the same bytes."""
    settings = {"participation": {"dropout": 0.5, "fraction": 0.8, "stragglers": 0.3, "deadline": 2.0}}
    train(small, tmp_path / "a", method, settings, rounds=3)
    planned = {each["round"]: each for each in read_json(tmp_path / "a/participation.json")["rounds"]}
    rows = read_jsonl(tmp_path / "a/rounds.jsonl")
    assert {len(row["clients"]) for row in rows} < {0, 1, 2, 3, 4, 5}
    for row in rows:
        took_part = [client["client"] for client in row["clients"]]
        catches_up = row["phase"] == "stage1" and row["round"] > 1
        present = planned[row["round"]]["present"]
        assert set(took_part) <= set(present) if catches_up else took_part == present
        assert row["participation"]["dropped"] == planned[row["round"]]["dropped"]
        if method == "pilot" and not (row["skipped"] or catches_up):
            assert row["aggregation"]["clients"] == present, "ATA over those present"
    models = client_models(spec_of(small, method, settings, 3), small.backbone, tmp_path / "a")
    for load in models.values():
        assert all(bool(torch.isfinite(value).all()) for value in load().state().values())
    train(small, tmp_path / "b", method, settings, rounds=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_round_below_quorum_changes_nothing(small: Small, tmp_path: Path) -> None:
    settings = {"participation": {"quorum": 6}, **attack("nan")}
    assert train(small, tmp_path, "fedavg", settings) == {}
    rows = read_jsonl(tmp_path / "rounds.jsonl")
    assert [row["skipped"] for row in rows] == [True, True]
    assert [[one["client"] for one in row["excluded"]] for row in rows] == [[1], [1]]


def test_nan_client_is_excluded_and_named(small: Small, tmp_path: Path) -> None:
    state = train(small, tmp_path, "fedavg", attack("nan"))
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    excluded = [row["excluded"] for row in read_jsonl(tmp_path / "rounds.jsonl")]
    assert [[one["client"] for one in row] for row in excluded] == [[1], [1]]
    assert all("not finite" in one["reason"] for row in excluded for one in row)


@pytest.mark.parametrize("defence", [{"aggregation": "median"}, {"aggregation": "trimmed_mean", "trim": 0.2}])
def test_robust_means_bound_a_scaled_client(small: Small, tmp_path: Path, defence: dict[str, Any]) -> None:
    """Distance to the mean of honest updates after one round: large undefended, much smaller with a robust mean."""
    honest = train(small, tmp_path / "honest", "fedavg", {}, rounds=1)

    def distance(name: str, settings: dict[str, Any]) -> float:
        state = train(small, tmp_path / name, "fedavg", settings, rounds=1)
        return math.sqrt(sum(float((state[n] - honest[n]).square().sum()) for n in honest))

    scaled = {"attacks": [{"kind": "scale", "clients": [1], "factor": 100.0}]}
    assert distance("defended", {**scaled, "defence": defence}) < 0.1 * distance("undefended", scaled)


def test_multi_krum_drops_the_scaled_client(small: Small, tmp_path: Path) -> None:
    settings = {
        "attacks": [{"kind": "scale", "clients": [1], "factor": 100.0}],
        "defence": {"aggregation": "multi_krum"},
    }
    train(small, tmp_path, "fedavg", settings, rounds=1)
    (row,) = read_jsonl(tmp_path / "rounds.jsonl")
    assert len(row["defence"]["multi_krum"]) == 5 and 1 not in row["defence"]["multi_krum"]


def test_clipping_notes_norms_and_bounds_the_step(small: Small, tmp_path: Path) -> None:
    """Every client moves by at most the bound from the common start, so their mean does."""
    settings = {"defence": {"clip_norm": 0.01}}
    clipped = train(small, tmp_path, "fedavg", settings, rounds=1)
    (row,) = read_jsonl(tmp_path / "rounds.jsonl")
    assert sorted(row["defence"]["norms"]) == list("012345") and min(row["defence"]["norms"].values()) > 0.01
    projector = dict(small.backbone.projector().named_parameters())
    moved = [clipped[f"connector.{name}"] - value for name, value in projector.items()]
    assert 0 < math.sqrt(sum(float(value.square().sum()) for value in moved)) <= 0.01


def test_free_rider_sends_what_it_received(small: Small, tmp_path: Path) -> None:
    """With everybody a free rider the first round leaves the start as it was."""
    everybody = {"attacks": [{"kind": "free_rider", "clients": [0, 1, 2, 3, 4, 5]}]}
    state = train(small, tmp_path, "fedavg", everybody, rounds=1)
    projector = dict(small.backbone.projector().named_parameters())
    for name, value in projector.items():
        assert torch.allclose(state[f"connector.{name}"], value, atol=1e-7)
    assert not any(bool(value.any()) for name, value in state.items() if name.endswith("lora_B"))


@pytest.mark.parametrize("method", few_of(["fedavg"], ["pilot"]))
def test_seeded_noise_repeats_and_says_that_it_protects_nobody(small: Small, tmp_path: Path, method: str) -> None:
    privacy = {"privacy": {"clip_norm": 0.1, "noise_multiplier": 0.5}}
    first = train(small, tmp_path / "a", method, privacy)
    assert equal(first, train(small, tmp_path / "b", method, privacy))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not equal(first, train(small, tmp_path / "c", method, {}))
    report = read_json(tmp_path / "a/privacy.json")
    phases = 3 if method == "pilot" else 2
    assert report["releases"] == {str(client): phases for client in range(6)}
    assert report["epsilon"]["add-or-remove-one"] < report["epsilon"]["replace-one"]
    assert report["holds_against"].startswith("nobody who knows or guesses the seed")
    rows = read_jsonl(tmp_path / "a/rounds.jsonl")
    assert all(client["losses"] == client["diagnostics"] == {} for row in rows for client in row["clients"])
    assert not (tmp_path / "c/privacy.json").exists()


def test_fresh_noise_differs_and_is_counted_over_restarts(small: Small, tmp_path: Path) -> None:
    """A phase that is trained again sends another message, which counts: three where the schedule has two."""
    privacy = {"privacy": {"clip_norm": 0.1, "noise_multiplier": 2.0, "noise": "system"}}
    spec = spec_of(small, "fedavg", privacy)

    def stop(done: int, total: int) -> None:
        if done == 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(spec, small.folder, tmp_path / "a", False, stop)
    train_run(spec, small.folder, tmp_path / "a", True, quiet)
    report = read_json(tmp_path / "a/privacy.json")
    assert report["releases"] == {"0": 3} | {str(client): 2 for client in range(1, 6)}
    train_run(spec, small.folder, tmp_path / "a", True, quiet)
    assert read_json(tmp_path / "a/privacy.json") == report
    train_run(spec, small.folder, tmp_path / "b", False, quiet)
    assert contents(tmp_path / "a") != contents(tmp_path / "b")


def test_a_client_that_missed_round_one_takes_its_stage_one_later(small: Small, tmp_path: Path) -> None:
    """Its client adapter is trained; nothing of that stage leaves; an interrupted run goes on the same."""
    settings = {"participation": {"fraction": 0.5}}
    train(small, tmp_path / "a", "pilot", settings, rounds=3)
    rows = read_jsonl(tmp_path / "a/rounds.jsonl")
    took = {number: [c["client"] for r in rows if r["round"] == number for c in r["clients"]] for number in (1, 2, 3)}
    new = {2: set(took[2]) - set(took[1]), 3: set(took[3]) - set(took[2]) - set(took[1])}
    assert new[2], "the schedule of seed 0 has newcomers in round 2"
    late = {row["round"]: row for row in rows if row["phase"] == "stage1" and row["round"] > 1}
    caught_up = {number: {client["client"] for client in row["clients"]} for number, row in late.items()}
    assert caught_up == {number: clients for number, clients in new.items() if clients}
    assert all(client["steps"] == 1 and row["aggregation"] == {} for row in late.values() for client in row["clients"])
    sent = [m for m in read_json(tmp_path / "a/ledger.json")["messages"] if m["phase"] == "stage1" and m["round"] > 1]
    assert {m["direction"] for m in sent} == {"down"}
    client = min(new[2])
    (path,) = sorted((tmp_path / f"a/clients/{client}").glob("r*.safetensors"))[-1:]
    half = small.backbone.projector().linear_2.bias / 2
    assert not torch.equal(load_state(path)["client_adapter.linear_2.bias"], half)

    def stop(done: int, total: int) -> None:
        if done > sum(c["steps"] for r in rows if r["round"] == 1 for c in r["clients"]) + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(spec_of(small, "pilot", settings, 3), small.folder, tmp_path / "b", True, stop)
    train_run(spec_of(small, "pilot", settings, 3), small.folder, tmp_path / "b", True, quiet)
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


@pytest.mark.parametrize(
    ("method", "federation", "message"),
    [
        ("fedmoe", {"privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0}}, "phase search sends statistics"),
        ("fedavg", attack("nan", 6), r"federation.attacks: expected client ids in 0\.\.5, got 6"),
        ("fedavg", {"participation": {"quorum": 7}}, "federation.participation.quorum: expected at most 6"),
    ],
)
def test_settings_that_do_not_fit(
    small: Small, tmp_path: Path, method: str, federation: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(small, tmp_path, method, federation)


@pytest.mark.parametrize("method", ["pilot", "ditto", "feddat"])
def test_a_round_too_short_for_its_phases_is_refused(small: Small, method: str) -> None:
    one = small.profile.model_copy(update={"local_steps": 1})
    spec = RunSpec(small.scenario, one, method, 0)
    with pytest.raises(UserError, match=rf"field local_steps: client 0 takes 1 step.*{method}.*at least 2") as caught:
        make_plan(spec, spec.make_method(), small.backbone, dict.fromkeys(range(6), 8))
    phases = {"pilot": "stage1, stage2", "ditto": "global, personal", "feddat": "shared, private"}
    assert phases[method] in str(caught.value)
    epochs = Profile.model_validate(small.profile.model_dump() | {"local_steps": None, "local_epochs": 1})
    spec = RunSpec(small.scenario, epochs, method, 0)
    with pytest.raises(UserError, match="field local_epochs: client 5 takes 1 step"):
        make_plan(spec, spec.make_method(), small.backbone, {**dict.fromkeys(range(5), 8), 5: 2})


def test_a_method_that_validates_needs_a_validation_part(small: Small) -> None:
    spec = RunSpec(small.scenario.model_copy(update={"validation_fraction": 0.0}), small.profile, "fedmoe", 0)
    with pytest.raises(UserError, match="scenario small: field validation_fraction: method fedmoe .* above 0"):
        make_plan(spec, spec.make_method(), small.backbone, dict.fromkeys(range(6), 8))
