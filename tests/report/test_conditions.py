"""`conditions.csv`: own, others' and no imaging conditions, and the test against FedAvg, against values by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilot.errors import UserError
from pilot.io.atomic import read_json, read_jsonl, write_json, write_jsonl
from pilot.report.compare.protocols import show_protocol
from pilot.report.numbers.conditions import ConditionRow, condition_rows
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.retraining import compare_trainings
from pilot.report.numbers.statistics import holm
from pilot.report.numbers.summary import group_runs

from .synthetic import write_metrics

CLIENTS = {"a": (0, 1), "b": (2, 3)}
IDS = ("x", "y", "z", "v")
Hits = dict[int, tuple[int, int, int, int]]
"""By client, whether each of the four test images is answered correctly."""


def evaluation(folder: Path, hits: Hits) -> None:
    """Write an evaluation with scores by example."""
    entries, examples = [], []
    for task, clients in CLIENTS.items():
        for client in clients:
            start = {"task": task, "protocol": "personalised", "client": client, "metric": "exact_match"}
            value = sum(hits[client]) / len(IDS)
            entries.append(start | {"kind": "vqa", "value": value, "status": "ok", "reason": "", "num_examples": 4})
            examples += [start | {"id": id, "value": float(hit)} for id, hit in zip(IDS, hits[client], strict=True)]
    write_jsonl(folder / "samples.jsonl", [])
    write_jsonl(folder / "per_example.jsonl", examples)
    write_metrics(folder, {"test_digest": "t", "entries": entries})


def write_run(root: Path, method: str, seed: int, clean: Hits, *under: Hits, conditions: Any = (["blur"], [])) -> None:
    """Write a run whose models answer so on clean images and under each condition."""
    run = root / "runs" / method / f"seed{seed}"
    evaluation(run / "eval", clean)
    for number, hits in enumerate(under, start=1):
        evaluation(run / "eval" / f"condition-{number}", hits)
    write_jsonl(run / "rounds.jsonl", [])
    write_json(run / "ledger.json", {"messages": [], "totals": {"bytes_up": 0, "bytes_down": 0}})
    write_json(run / "manifest.json", {"files": {"participation.json": "0"}})
    tasks = [{"name": name, "kind": "vqa", "clients": list(clients)} for name, clients in CLIENTS.items()]
    config = {"scenario": "s", "profile": "p", "method": method, "seed": seed, "tasks": tasks, "reference": False}
    config |= {"hyperparameters": {}, "budget": {"rounds": 3}, "digests": {}, "one_model": False}
    write_json(run / "config.json", config | {"scenario_config": {"conditions": conditions}})


def rows_of(root: Path) -> dict[tuple[str, str, str], ConditionRow]:
    """The table's lines by method, what is seen and task."""
    return {(row.method, row.seen, row.task): row for row in condition_rows(group_runs(load_runs([root])))}


ALL, NONE, HALF = (1, 1, 1, 1), (0, 0, 0, 0), (1, 1, 0, 0)
CLEAN: Hits = {0: ALL, 1: (1, 1, 1, 0), 2: ALL, 3: ALL}
FIRST: Hits = {0: (1, 1, 1, 0), 1: (1, 0, 0, 0), 2: NONE, 3: HALF}
"""The first clients of tasks a and b, 0 and 2, have this condition; 1 and 3 have the second."""
SECOND: Hits = {0: NONE, 1: HALF, 2: HALF, 3: ALL}


def test_own_and_others_by_hand(tmp_path: Path) -> None:
    """Task a: own (0.75 + 0.5) / 2, others (0 + 0.25) / 2; task b: own (0 + 1) / 2, others (0.5 + 0.5) / 2."""
    write_run(tmp_path, "pilot", 0, CLEAN, FIRST, SECOND)
    rows = rows_of(tmp_path)
    means = {(seen, task): row.mean for (_, seen, task), row in rows.items()}
    assert means == pytest.approx(
        {("own", "a"): 0.625, ("others", "a"): 0.125, ("clean", "a"): 0.875,
         ("own", "b"): 0.5, ("others", "b"): 0.5, ("clean", "b"): 1.0}
    )  # fmt: skip
    assert [row.seen for row in rows.values()] == ["own", "own", "others", "others", "clean", "clean"]
    own = rows["pilot", "own", "a"]
    assert own.difference == pytest.approx(0.625 - 0.875) and rows["pilot", "clean", "a"].difference is None
    assert own.ci_low is not None and own.ci_low <= 0.625 <= (own.ci_high or 0)
    assert own.difference_low is not None and own.difference_low <= -0.25 <= (own.difference_high or 0)
    assert {row.p_holm for row in rows.values()} == {None}, "no fedavg, one seed"


def test_others_is_the_mean_of_all_other_conditions(tmp_path: Path) -> None:
    """With three conditions and two clients, client 0 has the first and client 1 the second."""
    third: Hits = {0: ALL, 1: NONE, 2: ALL, 3: NONE}
    write_run(tmp_path, "pilot", 0, CLEAN, FIRST, SECOND, third, conditions=(["blur"], ["noise"], []))
    rows = rows_of(tmp_path)
    assert rows["pilot", "own", "a"].mean == pytest.approx(0.625)
    assert rows["pilot", "others", "a"].mean == pytest.approx(((0 + 1) / 2 + (0.25 + 0) / 2) / 2)


def test_difference_from_fedavg_after_training_again(tmp_path: Path) -> None:
    """The test of `retraining` on the clients' mean of each image, with Holm over own and others of both tasks."""
    better: Hits = {0: ALL, 1: ALL, 2: ALL, 3: ALL}
    for seed in (0, 1, 2):
        write_run(tmp_path, "fedavg", seed, CLEAN, FIRST, SECOND)
        first = better if seed else FIRST
        write_run(tmp_path, "pilot", seed, CLEAN, first, SECOND)
    rows = rows_of(tmp_path)
    assert {rows["fedavg", seen, task].p_holm for seen in ("own", "others") for task in "ab"} == {None}
    assert rows["pilot", "clean", "a"].over_fedavg is None
    # own: client 0 (2) under the first condition changes from (1, 1, 1, 0) (none) to all right, client 1 (3) does not
    zero, a, b = [0.0] * 4, [0.0, 0.0, 0.0, 0.5], [0.5] * 4
    others_a, others_b = [0.0, 0.5, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5]
    changes = {("own", "a"): a, ("own", "b"): b, ("others", "a"): others_a, ("others", "b"): others_b}
    results = {key: compare_trainings(np.array([zero, own, own]), np.arange(4)) for key, own in changes.items()}
    expected = dict(zip(results, holm([result.p_value for result in results.values()]), strict=True))
    for (seen, task), result in results.items():
        row = rows["pilot", seen, task]
        assert row.over_fedavg == pytest.approx(result.difference) and row.p_holm == pytest.approx(expected[seen, task])
    assert rows["pilot", "own", "b"].over_fedavg == pytest.approx(1 / 3)


def test_other_questions_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "pilot", 0, CLEAN, FIRST, SECOND)
    file = tmp_path / "runs/pilot/seed0/eval/condition-2/per_example.jsonl"
    write_jsonl(file, [row | {"id": f"other-{row['id']}"} for row in read_jsonl(file)])
    write_metrics(file.parent, read_json(file.with_name("metrics.json")))
    with pytest.raises(UserError, match="not to the questions of a's other answers"):
        rows_of(tmp_path)


def test_runs_without_conditions(tmp_path: Path) -> None:
    write_run(tmp_path, "pilot", 0, CLEAN, conditions=None)
    assert rows_of(tmp_path) == {}
    with pytest.raises(UserError, match="field `conditions`"):
        show_protocol([tmp_path], "conditions")
    write_run(tmp_path, "fedavg", 0, CLEAN, FIRST)  # the second condition was not evaluated
    assert rows_of(tmp_path) == {}
