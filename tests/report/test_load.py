"""What is found, and what is said of runs that cannot be read."""

import shutil
from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.report.numbers.load import load_runs

from .synthetic import build_run, build_scenario


def test_finds_runs_under_every_kind_of_folder(scenario: Path) -> None:
    pilot = scenario / "runs" / "pilot"
    assert len(load_runs([scenario])) == 6 * 3 + 2
    assert len(load_runs([scenario.parent])) == 20
    assert [run.seed for run in load_runs([pilot])] == [0, 1, 2]
    assert [run.path for run in load_runs([pilot / "seed1"])] == [pilot / "seed1"]
    assert len(load_runs([pilot, pilot / "seed1"])) == 3


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs here.*pilot-bench train"):
        load_runs([tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        load_runs([tmp_path / "absent"])


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("manifest.json", r"fedavg/seed1.*not complete \(manifest.json is missing\).*--resume"),
        ("eval/metrics.json", r"fedavg/seed1.*not evaluated.*pilot-bench evaluate .*fedavg/seed1"),
        ("ledger.json", r"fedavg/seed1.*ledger.json is missing"),
    ],
)
def test_unfinished_runs_are_named(scenario_copy: Path, missing: str, said: str) -> None:
    (scenario_copy / "runs" / "fedavg" / "seed1" / missing).unlink()
    with pytest.raises(UserError, match=said):
        load_runs([scenario_copy])


def test_torn_and_foreign_files_are_named(scenario_copy: Path) -> None:
    config = scenario_copy / "runs" / "pilot" / "seed0" / "config.json"
    config.write_text('{"scenario": ')
    with pytest.raises(UserError, match=r"config.json: damaged .*not JSON"):
        load_runs([scenario_copy])
    config.write_text("{}")
    with pytest.raises(UserError, match=r"pilot/seed0.*field 'budget'"):
        load_runs([scenario_copy])


def test_runs_that_are_not_seeds_of_one_method_are_told_apart(scenario_copy: Path) -> None:
    build_run(scenario_copy / "runs" / "pilot-no-ata" / "seed0", "pilot", 0, hyperparameters={"ata": False})
    labels = {run.label for run in load_runs([scenario_copy])}
    assert {"pilot [pilot]", "pilot [pilot-no-ata]", "fedavg"} <= labels


def test_copies_are_never_taken_for_more_seeds(tmp_path: Path) -> None:
    """Two folders with two profiles each: the profile alone does not tell the copies apart."""
    for place in ("a", "b"):
        made = build_scenario(tmp_path / place, ("fedavg",), seeds=(0, 1))
        shutil.copytree(made, tmp_path / place / "other" / made.name)
    runs = load_runs(sorted(tmp_path.glob("*/*/scenario2")))
    expected = [f"fedavg [{place}/{profile}]" for place in "ab" for profile in ("embedded", "other")]
    assert [run.label for run in runs] == [label for label in expected for _ in (0, 1)]
    one_profile = load_runs(sorted(tmp_path.glob("*/embedded/scenario2")))
    assert {run.label for run in one_profile} == {"fedavg [a]", "fedavg [b]"}


def test_seeds_of_one_folder_that_differ_are_refused(scenario_copy: Path) -> None:
    """They used to be averaged, and as a baseline they made every test disappear."""
    odd = scenario_copy / "runs/pilot/seed1"
    shutil.rmtree(odd)
    build_run(odd, "pilot", 1, hyperparameters={"ata": False})
    with pytest.raises(UserError, match=r"pilot/seed0 and .*pilot/seed1: different hyperparameters \(ata\)"):
        load_runs([scenario_copy])
    shutil.rmtree(odd)
    shutil.copytree(scenario_copy / "runs/pilot/seed0", odd)
    with pytest.raises(UserError, match=r"both are seed 0 of pilot"):
        load_runs([scenario_copy])
