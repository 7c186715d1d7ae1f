"""What is found, and what is said of runs that cannot be read."""

from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.report.numbers.load import load_runs

from .synthetic import build_run


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
