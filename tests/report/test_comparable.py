"""What is refused, what the refusal says, and what may be overlooked."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pilot.cli.options import Difference
from pilot.errors import UserError
from pilot.report.numbers.comparable import DIFFERENCES, EVERYTHING, check_comparable
from pilot.report.numbers.load import load_runs

from .synthetic import BUDGET, build_run, build_scenario, reseal


def edit(path: Path, **fields: Any) -> None:
    """Replace top-level fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def refusal(scenario: Path, allow: tuple[str, ...] = ()) -> str:
    """The message with which the runs of a scenario are refused."""
    with pytest.raises(UserError) as caught:
        check_comparable(load_runs([scenario]), allow)
    return str(caught.value)


def reframe(run: Path, frame: str) -> None:
    """Rename the grounding metrics of a run to another coordinate frame."""
    for name in ("metrics.json", "per_example.jsonl"):
        path = run / "eval" / name
        path.write_text(path.read_text().replace("[original]", f"[{frame}]"))
    reseal(run)


@pytest.mark.parametrize("name", ["data", "partition", "backbone"])
def test_other_digests_are_refused(scenario_copy: Path, name: str) -> None:
    path = scenario_copy / "runs" / "fedmoe" / "seed2" / "config.json"
    edit(path, digests=json.loads(path.read_text())["digests"] | {name: "x" * 64})
    message = refusal(scenario_copy)
    assert f"- {name} digest differs" in message
    assert f"xxxxxxxxxxxx...: {scenario_copy}/runs/fedmoe/seed2" in message
    assert message.endswith(f"or pass --allow-different {name} to compare them anyway.")
    allowed = check_comparable(load_runs([scenario_copy]), [name])
    assert allowed.names == (name,) and [each.what for each in allowed.found] == [name]


def test_other_test_set_is_refused(scenario_copy: Path) -> None:
    edit(scenario_copy / "runs" / "local" / "seed0" / "eval" / "metrics.json", test_digest="u" * 64)
    assert "test set digest differs" in refusal(scenario_copy)


def test_other_budget_is_refused_but_not_of_references(scenario_copy: Path) -> None:
    edit(scenario_copy / "runs" / "untuned" / "seed0" / "config.json", budget=BUDGET | {"total_steps": 0})
    check_comparable(load_runs([scenario_copy]))
    edit(scenario_copy / "runs" / "pilot" / "seed0" / "config.json", budget=BUDGET | {"total_steps": 999})
    lines = refusal(scenario_copy).split("\n")
    assert lines[1] == "- budget total_steps differs:" and lines[2].startswith("    216: ")
    assert lines[3] == f"    999: {scenario_copy}/runs/pilot/seed0"


def test_other_seeds_are_refused_but_not_of_references(scenario_copy: Path) -> None:
    check_comparable(load_runs([scenario_copy]))  # untuned and majority have seed 0 only
    (scenario_copy / "runs" / "fedavg" / "seed2").rename(scenario_copy / "runs" / "fedavg" / "seed7")
    edit(scenario_copy / "runs" / "fedavg" / "seed7" / "config.json", seed=7)
    message = refusal(scenario_copy)
    assert "- seeds of the methods of scenario2 differ:\n    0, 1, 7: fedavg\n    0, 1, 2: fedmoe, " in message
    assert "--allow-different seeds" in message


def test_other_frame_is_refused(scenario_copy: Path) -> None:
    reframe(scenario_copy / "runs" / "pilot" / "seed1", "padded_square")
    message = refusal(scenario_copy)
    assert "- coordinate frame differs:\n    original: " in message
    assert f"    padded_square: {scenario_copy}/runs/pilot/seed1" in message


def test_only_what_is_allowed_is_overlooked(scenario_copy: Path) -> None:
    path = scenario_copy / "runs" / "fedmoe" / "seed2" / "config.json"
    edit(path, digests=json.loads(path.read_text())["digests"] | {"data": "x" * 64}, budget=BUDGET | {"rounds": 5})
    message = refusal(scenario_copy, ("data", "frame"))
    assert "budget rounds differs" in message and "data digest" not in message
    assert "pass --allow-different budget to" in message
    allowed = check_comparable(load_runs([scenario_copy]), ["all"])
    assert allowed.names == DIFFERENCES and [each.what for each in allowed.found] == ["data", "budget"]


def test_unknown_names_are_refused(scenario: Path) -> None:
    assert "--allow-different budgets: unknown. Expected one of: data, " in refusal(scenario, ("budgets",))
    assert {each.value for each in Difference} == {*DIFFERENCES, EVERYTHING}


def test_ablations_with_fewer_seeds_are_refused(scenario_copy: Path) -> None:
    build_run(scenario_copy / "runs" / "pilot-no-ata" / "seed0", "pilot", 0, hyperparameters={"ata": False})
    assert "    0: pilot [pilot-no-ata]" in refusal(scenario_copy)


def test_scenarios_are_compared_within_themselves(tmp_path: Path) -> None:
    """Two scenarios have other data and shards; within each of them a difference is still refused."""
    first = build_scenario(tmp_path, ("fedavg", "pilot"), seeds=(0, 1))
    second = Path(shutil.copytree(first, first.with_name("scenario2+alpha-1")))
    for path in second.glob("runs/*/*/config.json"):
        digests = json.loads(path.read_text())["digests"]
        edit(path, scenario=second.name, digests=digests | {"partition": "x" * 64, "data": "y" * 64})
    assert check_comparable(load_runs([first, second])).found == ()
    edit(path, digests=digests | {"partition": "z" * 64, "data": "y" * 64})
    with pytest.raises(UserError, match="partition digest differs"):
        check_comparable(load_runs([first, second]))
