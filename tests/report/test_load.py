"""What is found, what is refused, and what the refusal says."""

import json
from pathlib import Path
from typing import Any

import pytest

from pilot.errors import UserError
from pilot.report.load import check_comparable, load_runs

from .synthetic import BUDGET, build_run


def edit(path: Path, **fields: Any) -> None:
    """Replace top-level fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


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
    with pytest.raises(UserError, match=r"config.json: cannot be read"):
        load_runs([scenario_copy])
    config.write_text("{}")
    with pytest.raises(UserError, match=r"pilot/seed0.*field 'budget'"):
        load_runs([scenario_copy])


@pytest.mark.parametrize("name", ["data", "partition", "backbone"])
def test_other_digests_are_refused(scenario_copy: Path, name: str) -> None:
    path = scenario_copy / "runs" / "fedmoe" / "seed2" / "config.json"
    digests = json.loads(path.read_text())["digests"] | {name: "x" * 64}
    edit(path, digests=digests)
    runs = load_runs([scenario_copy])
    with pytest.raises(UserError) as caught:
        check_comparable(runs)
    assert f"{name} digest differs" in str(caught.value)
    assert f"xxxxxxxxxxxx...: {scenario_copy}/runs/fedmoe/seed2" in str(caught.value)
    assert "--allow-different" in str(caught.value)
    check_comparable(runs, allow_different=True)


def test_other_test_set_is_refused(scenario_copy: Path) -> None:
    edit(scenario_copy / "runs" / "local" / "seed0" / "eval" / "metrics.json", test_digest="u" * 64)
    with pytest.raises(UserError, match="test set digest differs"):
        check_comparable(load_runs([scenario_copy]))


def test_other_budget_is_refused_but_not_of_references(scenario_copy: Path) -> None:
    edit(scenario_copy / "runs" / "untuned" / "seed0" / "config.json", budget=BUDGET | {"total_steps": 0})
    check_comparable(load_runs([scenario_copy]))
    edit(scenario_copy / "runs" / "pilot" / "seed0" / "config.json", budget=BUDGET | {"total_steps": 999})
    with pytest.raises(UserError, match="budget total_steps differs.*\n.*216.*\n.*999: .*pilot/seed0"):
        check_comparable(load_runs([scenario_copy]))


def test_runs_that_are_not_seeds_of_one_method_are_told_apart(scenario_copy: Path) -> None:
    build_run(scenario_copy / "runs" / "pilot-no-ata" / "seed0", "pilot", 0, hyperparameters={"ata": False})
    labels = {run.label for run in load_runs([scenario_copy])}
    assert {"pilot [pilot]", "pilot [pilot-no-ata]", "fedavg"} <= labels
