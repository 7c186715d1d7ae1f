"""Runs whose profile says `evaluate_every`: models of earlier rounds are kept, answered and scored."""

from pathlib import Path

import pytest
import torch

from pilot.config.profile import Profile
from pilot.evaluation.answers import answer_run
from pilot.federation.checkpoint import load_progress, rounds_of
from pilot.federation.nodes import prepare_nodes
from pilot.federation.spec import RunSpec
from pilot.federation.training import client_models, train_run
from pilot.io.atomic import read_jsonl
from pilot.io.layout import evaluations, run_folder
from pilot.methods.base import State

from ..marks import few_of
from ..small import Small, contents, quiet
from .grid import inside_flower
from .test_wire import Killed, kill, train

pytestmark = pytest.mark.slow


def spec_of(small: Small, method: str, **changes: object) -> RunSpec:
    """A run of four rounds whose models are evaluated after round 2, too."""
    values = small.profile.model_dump() | {"rounds": 4, "evaluate_every": 2} | changes
    scenario = small.scenario.model_copy(update={"cross_task": True})
    return RunSpec(scenario, Profile.model_validate(values), method, 0)


def states(small: Small, spec: RunSpec, run: Path, number: int | None = None) -> list[State]:
    """The parameters of all models of a round."""
    return [load().state() for load in client_models(spec, small.backbone, run, number).values()]


def equal(a: list[State], b: list[State]) -> bool:
    """Same names, same bits."""
    assert len(a) == len(b) and all(one.keys() == other.keys() for one, other in zip(a, b, strict=True))
    return all(torch.equal(one[name], other[name]) for one, other in zip(a, b, strict=True) for name in one)


@pytest.mark.parametrize("method", few_of(["pilot"], ["fedavg", "fedmoe", "ditto"]))
def test_models_of_evaluated_rounds_are_kept(small: Small, tmp_path: Path, method: str) -> None:
    """A run that is killed in round 3 has as its last models those that the whole run keeps of round 2."""
    spec = spec_of(small, method, local_steps=2)
    train_run(spec, small.folder, tmp_path / "whole", False, quiet)
    assert rounds_of(tmp_path / "whole/checkpoint") == [2, 3, 4]

    with pytest.raises(Killed):
        train_run(spec, small.folder, tmp_path / "killed", True, kill)
    assert rounds_of(tmp_path / "killed/checkpoint") == [1, 2]
    after_two = states(small, spec, tmp_path / "killed")
    assert equal(states(small, spec, tmp_path / "whole", 2), after_two)
    assert not equal(states(small, spec, tmp_path / "whole"), after_two)
    train_run(spec, small.folder, tmp_path / "killed", True, quiet)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")

    # Both of the last rounds are damaged: the run goes on from the evaluated one before them. That one is damaged: what
    # was trained after it cannot be used either, since its models are to be evaluated.
    for damaged in ((3, 4), (2,)):
        for number in damaged:
            (tmp_path / f"killed/checkpoint/round-{number}/server.safetensors").write_bytes(b"")
        train_run(spec, small.folder, tmp_path / "killed", True, quiet)
        assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_bytes_do_not_depend_on_the_wire(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside_flower(monkeypatch)
    spec = spec_of(small, "pilot", rounds=2, evaluate_every=1)
    train_run(spec, small.folder, tmp_path / "local", False, quiet)
    prepare_nodes(small.scenario, small.folder, tmp_path / "nodes")
    train(small, tmp_path / "nodes", tmp_path / "wire", spec, quiet)
    assert contents(tmp_path / "wire") == contents(tmp_path / "local")


def test_keeping_models_changes_no_model(small: Small, tmp_path: Path) -> None:
    for name, every in (("with", 1), ("without", None)):
        spec = spec_of(small, "local", rounds=3, evaluate_every=every)
        train_run(spec, small.folder, tmp_path / name, False, quiet)
    final = [load_progress(tmp_path / name / "checkpoint", None) for name in ("with", "without")]
    assert final[0] is not None and final[1] is not None
    assert final[0].versions == final[1].versions and len(final[0].versions) == 6
    assert set(final[0].evaluated) == {1, 2} and final[1].evaluated == {}


def test_a_missing_private_state_of_an_evaluated_round_is_found(small: Small, tmp_path: Path) -> None:
    """A run is complete only while everything that is evaluated is there: the resumed run makes it again."""
    spec = spec_of(small, "local", rounds=3, evaluate_every=1)
    train_run(spec, small.folder, tmp_path, False, quiet)
    whole = contents(tmp_path)
    (tmp_path / "clients/3/r1p0.safetensors").unlink()
    train_run(spec, small.folder, tmp_path, True, quiet)
    assert contents(tmp_path) == whole


def test_who_answers_what(small: Small) -> None:
    """Every evaluation has its folder; only the models of the last round answer the other tasks' test sets."""
    runs = []
    for method in ("fedavg", "local"):
        runs.append(run_folder(small.folder, f"{method}-evaluated", 0))
        train_run(spec_of(small, method, rounds=2, evaluate_every=1), small.folder, runs[-1], True, quiet)
        answer_run(runs[-1], quiet)
    names = ["", "round-1"]
    assert [evaluations(run, "samples.jsonl") for run in runs] == [names, ["", "cross-task", *names[1:]]]
    asked = {
        name: [row | {"prediction": ""} for row in read_jsonl(runs[1] / "eval" / name / "samples.jsonl")]
        for name in names
    }
    assert asked[""] == asked["round-1"]
    rows = read_jsonl(runs[1] / "eval/cross-task/samples.jsonl")
    assert len(rows) == 6 * 2 * 8 and {row["protocol"] for row in rows} == {"cross-task"}
    asked_of = {(client, row["task"]) for row in rows for client in row["clients"]}
    tasks = [task.name for task in small.scenario.client_tasks]
    assert asked_of == {(client, task) for client in range(6) for task in tasks if task != tasks[client]}
