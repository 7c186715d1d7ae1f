"""Curves, targets, other tasks, fairness and newcomers (docs/protocols.md), against values computed by hand."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilot.errors import UserError
from pilot.io.atomic import read_json, read_jsonl, write_json, write_jsonl, write_text
from pilot.report.compare.protocols import show_protocol
from pilot.report.html.protocol_charts import curve_axes
from pilot.report.numbers.cross_task import fairness_rows, jain, matrix_rows
from pilot.report.numbers.curves import CurveRow, area_under, curve_rows, spent_until, target_rows
from pilot.report.numbers.intervals import combined_interval
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.summary import Group, group_runs, main_rows
from pilot.report.plots.page import SCREEN
from pilot.report.plots.style import Source
from pilot.report.plots.write import FIGURES
from pilot.report.tables.protocols import PROTOCOL_TABLES
from pilot.report.tables.render import column_names, to_csv

from .legible import drawn
from .synthetic import SKILL, build_scenario, write_metrics

TASKS = [
    {"name": "a", "kind": "vqa", "clients": [0]},
    {"name": "b", "kind": "vqa", "clients": [1]},
    {"name": "c", "kind": "vqa", "clients": [2]},
]
UNTUNED, CENTRAL = (0.1, 0.2, 0.1), (0.9, 1.0, 0.6)
PILOT = ((0.5, 0.4, 0.2), (0.3, 0.8, 0.1), (0.1, 0.2, 0.6))
"""Client i's model on task t. Scaled: (0.5, 0.25, 0.2), (0.25, 0.75, 0), (0, 0, 1)."""


def entries(values: Mapping[tuple[int, str], float], protocol: str) -> list[dict[str, Any]]:
    """The metrics of (client, task)."""
    return [
        {"task": task, "kind": "vqa", "protocol": protocol, "client": client, "metric": "exact_match", "value": value,
         "status": "ok", "reason": "", "num_examples": 10}
        for (client, task), value in values.items()
    ]  # fmt: skip


def evaluation(folder: Path, values: Mapping[tuple[int, str], float], protocol: str = "personalised") -> None:
    """Write an evaluation without scores by example."""
    for name in ("samples.jsonl", "per_example.jsonl"):
        write_jsonl(folder / name, [])
    write_metrics(folder, {"test_digest": "t", "entries": entries(values, protocol)})


def write_run(
    scenario: Path, method: str, matrix: Sequence[Sequence[float]], seed: int = 0,
    earlier: Mapping[int, Sequence[float]] | None = None, targets: Any = None, one_model: bool = False,
) -> Path:  # fmt: skip
    """A run whose models have these values; `earlier` has the clients' values on their own tasks by round."""
    run = scenario / "runs" / method / f"seed{seed}"
    names = [str(task["name"]) for task in TASKS]
    own = {(i, names[i]): matrix[i][i] for i in range(3)}
    evaluation(run / "eval", own)
    if not one_model:
        others = {(i, names[t]): matrix[i][t] for i in range(3) for t in range(3) if i != t}
        evaluation(run / "eval/cross-task", others, "cross-task")
    for number, values in (earlier or {}).items():
        evaluation(run / "eval" / f"round-{number}", {(i, names[i]): values[i] for i in range(3)})
    trained = method not in ("untuned", "majority")
    rounds = [
        {"round": number, "phase": "train", "clients": [{"client": i, "task": names[i], "steps": 5} for i in range(3)]}
        for number in ((1, 2, 3) if trained else ())
    ]
    messages = [
        {"round": row["round"], "phase": "train", "client": i, "direction": way, "groups": {"connector": 100}}
        for row in rounds if method != "local" for i in range(3) for way in ("down", "up")
    ]  # fmt: skip
    write_jsonl(run / "rounds.jsonl", rounds)
    write_json(run / "ledger.json", {"messages": messages, "totals": {"bytes_up": 0, "bytes_down": 0}})
    write_json(run / "manifest.json", {"files": {"participation.json": "0"}})
    config = {"scenario": "s", "profile": "p", "method": method, "seed": seed, "tasks": TASKS, "reference": not trained}
    config |= {"hyperparameters": {}, "budget": {"rounds": 3}, "digests": {}, "one_model": one_model}
    write_json(run / "config.json", config | {"scenario_config": {"targets": targets}})
    return run


def groups_of(scenario: Path) -> list[Group]:
    """The runs of the folder."""
    return group_runs(load_runs([scenario]))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Pilot's matrix with both ends of the scale."""
    run = write_run(tmp_path, "pilot", PILOT)
    evaluation(run / "eval/post-fit", {(0, "a"): 0.58, (1, "b"): 0.8, (2, "c"): 0.5})  # scaled: 0.6, 0.75, 0.8
    write_run(tmp_path, "untuned", [UNTUNED] * 3, one_model=True)
    write_run(tmp_path, "central", [CENTRAL] * 3, one_model=True)
    return tmp_path


def test_fairness_of_three_clients(three: Path) -> None:
    rows = {row.quantity: row for row in fairness_rows(groups_of(three)) if row.method == "pilot"}
    expected = {
        "self": 2.25 / 3, "self_post_fit": 2.15 / 3, "others": (0.25 + 0.2 + 0.25) / 6,
        "worst_client": 0.5, "worst_3_mean": 0.75,
        "std": math.sqrt(0.125 / 3), "jain": 2.25**2 / (3 * (0.25 + 0.5625 + 1)),
    }  # fmt: skip
    assert {name: row.mean for name, row in rows.items()} == pytest.approx(expected)
    assert {row.status for row in rows.values()} == {"ok"}


def test_one_model_serves_everybody(three: Path) -> None:
    """The pooled model is the end of the scale on every task, its own or not."""
    rows = {row.quantity: row.mean for row in fairness_rows(groups_of(three)) if row.method == "central"}
    assert rows.pop("self_post_fit") is None
    assert rows == pytest.approx(
        {"self": 1, "others": 1, "worst_client": 1, "worst_3_mean": 1, "std": 0, "jain": 1}, abs=1e-12
    )
    cells = [(row.client, row.client_task, row.task, row.mean) for row in matrix_rows(groups_of(three))]
    assert cells[:9] == [(str(i), "abc"[i], "abc"[t], PILOT[i][t]) for i in range(3) for t in range(3)]
    ends = [("all", "", "abc"[t], value[t]) for value in (CENTRAL, UNTUNED) for t in range(3)]
    assert cells[9:] == ends


def test_what_is_missing_is_said(three: Path, tmp_path: Path) -> None:
    rows = fairness_rows([group for group in groups_of(three) if group.method != "central"])
    assert {row.status for row in rows} == {"a: no value of central to scale by"} and len(rows) == 7
    write_run(tmp_path, "pilot", [[0.5, 0, 0], [0, 0.1, 0], [0, 0, 0.6]], seed=0)  # below untuned's 0.2 on its own task
    for name in ("samples.jsonl", "per_example.jsonl", "metrics.json"):
        (three / "runs/pilot/seed0/eval/cross-task" / name).unlink()
    rows = {row.quantity: row for row in fairness_rows(groups_of(three)) if row.method == "pilot"}
    assert rows["jain"].mean is None and "negative" in rows["jain"].status
    assert rows["others"].mean is None and "cross_task" in rows["others"].status
    assert rows["worst_client"].mean == pytest.approx(-0.125)


def test_jain() -> None:
    assert jain(np.array([2.0, 2.0, 2.0])) == pytest.approx(1)
    assert jain(np.array([5.0, 0.0, 0.0])) == pytest.approx(1 / 3)
    assert jain(np.array([0.0, 0.0])) is None and jain(np.array([1.0, -0.1])) is None


def test_interval_of_several_tasks() -> None:
    """Seeds 1, 2, 3 of one client: 2 +- t(2) sqrt(1/3). Two such tasks with halves: half the variance, 4 degrees.

    Seeds that the tasks share outweigh that: the sums 1, 2, 3 vary as one task does.
    """
    one = np.array([[1.0], [2.0], [3.0]])
    low, high = combined_interval([(1.0, one)], np.array([1.0, 2.0, 3.0])) or (0, 0)
    assert (low, high) == pytest.approx((2 - 4.302653 * 3**-0.5, 2 + 4.302653 * 3**-0.5), abs=1e-5)
    apart = combined_interval([(0.5, one), (0.5, one[[1, 2, 0]])], np.array([1.5, 2.5, 2.0])) or (0, 0)
    assert apart[1] == pytest.approx(2 + 2.776445 * (1 / 6) ** 0.5, abs=1e-5)
    together = combined_interval([(0.5, one), (0.5, one)], np.array([1.0, 2.0, 3.0])) or (0, 0)
    assert together == pytest.approx((low, high), abs=1e-5)
    assert combined_interval([(1.0, np.ones((3, 2)))], np.ones(3)) is None


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    """Two seeds of Pilot, evaluated after rounds 1 and 2, too; task a's clients reach 0.2, 0.5, 0.6 in the mean."""
    for seed, aside in ((0, 0.05), (1, -0.05)):
        last = [[0.6 + aside, 0, 0], [0, 0.5, 0], [0, 0, 0.4]]
        earlier = {1: (0.2 + aside, 0.1, 0.1), 2: (0.5 - aside, 0.3, 0.2)}
        write_run(tmp_path, "pilot", last, seed, earlier, targets=0.5)
        write_run(tmp_path, "local", [[1.0, 0, 0], [0, 1.2, 0], [0, 0, 0.7]], seed, {1: (1,) * 3, 2: (1,) * 3}, 0.5)
    write_run(tmp_path, "untuned", [(0.1, 0.1, 0.1)] * 3, one_model=True, targets=0.5)
    return tmp_path


def test_curves_end_in_the_headline(curves: Path) -> None:
    groups = groups_of(curves)
    rows = curve_rows(groups)
    pilot = [row for row in rows if (row.method, row.task, row.protocol) == ("pilot", "a", "personalised")]
    assert [row.round for row in pilot] == [1, 2, 3]
    assert [row.mean for row in pilot] == pytest.approx([0.2, 0.5, 0.6])
    assert [row.std for row in pilot] == pytest.approx([0.05 * 2**0.5] * 3)
    assert [(row.bytes, row.steps) for row in pilot] == [(600, 15), (1200, 30), (1800, 45)]
    assert [row.bytes for row in rows if row.method == "local"] == [0] * len([r for r in rows if r.method == "local"])
    assert {(row.round, row.bytes, row.steps) for row in rows if row.method == "untuned"} == {(0, 0, 0)}
    for headline in main_rows(groups):
        key = headline.method, headline.task, headline.protocol
        end = [row for row in rows if (row.method, row.task, row.protocol) == key][-1]
        assert (end.mean, end.std, end.ci_low, end.ci_high) == (
            headline.mean, headline.std, headline.ci_low, headline.ci_high
        )  # fmt: skip
    assert spent_until(groups[0], 2) == (1200, 30, None)


def test_targets(curves: Path) -> None:
    """Half of local's 1.0, 1.2 and 0.7. Task b ends at 0.5 and never has 0.6; a seed that is below may be alone."""
    groups = groups_of(curves)
    rows = {(row.method, row.task): row for row in target_rows(groups, curve_rows(groups))}
    assert [rows["pilot", task].target for task in "abc"] == pytest.approx([0.5, 0.6, 0.35])
    a, b, c = (rows["pilot", task] for task in "abc")
    assert (a.status, a.round, a.bytes, a.steps, a.seeds_reached) == ("reached", 2, 1200, 30, 2)
    assert (b.status, b.round, b.bytes, b.steps, b.seeds_reached) == ("not reached", None, None, None, 0)
    assert (c.status, c.round) == ("reached", 3)
    assert a.area == pytest.approx((0.15 + 0.35 + 0.55) / 3)  # from untuned's 0.1 at round 0
    assert ("untuned", "a") not in rows
    for run in curves.glob("runs/*/*/config.json"):
        write_json(run, read_json(run) | {"scenario_config": {"targets": {"b": 0.3}}})
    groups = groups_of(curves)
    named = {(row.method, row.task): row for row in target_rows(groups, curve_rows(groups))}
    assert named["pilot", "b"].round == 2 and named["pilot", "a"].status == "no target"
    for run in curves.glob("runs/*/*/config.json"):
        write_json(run, read_json(run) | {"scenario_config": {"targets": 0.9}})
    without = [group for group in groups_of(curves) if group.method == "pilot"]
    rest = target_rows(without, curve_rows(without))
    assert {row.status for row in rest} == {"no value of local"}
    assert rest[0].area == pytest.approx((0.35 + 0.55) / 2)  # from the first evaluated round: untuned is not here


def test_time_of_a_virtual_clock(curves: Path) -> None:
    """Rounds of 7 units of time; the target is reached in round 2. References have no time."""
    for run in curves.glob("runs/*/*/rounds.jsonl"):
        write_jsonl(run, [{**row, "end": 7.0 * row["round"]} for row in read_jsonl(run)])
    groups = groups_of(curves)
    rows = curve_rows(groups)
    pilot = [row.time for row in rows if (row.method, row.task, row.protocol) == ("pilot", "a", "personalised")]
    assert pilot == [7.0, 14.0, 21.0] and {row.time for row in rows if row.method == "untuned"} == {None}
    reached = {row.task: row.time for row in target_rows(groups, rows) if row.method == "pilot"}
    assert reached == {"a": 14.0, "b": None, "c": 21.0}
    write_text(curves / "tables/curves.csv", to_csv(rows, column_names(CurveRow)))
    source = Source(curves, tuple(load_runs([curves])))
    assert source.timed and list(curve_axes(source)) == ["round", "megabytes", "steps", "time"]


def test_area() -> None:
    assert area_under([(1, 0.2), (3, 0.4)]) == pytest.approx(0.3)
    assert area_under([(1, 0.0), (2, 1.0), (4, 1.0)]) == pytest.approx((0.5 + 2) / 3)
    assert area_under([(3, 1.0)]) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", PROTOCOL_TABLES)
def test_every_format_shows_the_same_numbers(scenario: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = list(csv.DictReader((scenario / "tables" / f"{name}.csv").open()))
    text = show_protocol([scenario], name, "csv")
    assert text is not None and list(csv.DictReader(io.StringIO(text))) == table and len(table) > 10
    records = json.loads(show_protocol([scenario], name, "json") or "")
    number = next(column for column in ("mean", "area") if column in table[0])
    assert [each[number] for each in records] == [float(each[number]) if each[number] else None for each in table]
    first = f"{records[0][number]:.3f}"
    for form in ("markdown", "latex"):
        assert first in (show_protocol([scenario], name, form) or ""), form
    assert show_protocol([scenario], name, "table") is None and first in capsys.readouterr().out


def test_bad_input(scenario: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected runs that were trained here"):
        show_protocol([scenario / "runs/untuned"], "targets")
    with pytest.raises(UserError, match="--format pdf: unknown"):
        show_protocol([scenario], "curves", "pdf")


@pytest.mark.slow
def test_curves_have_intervals_up_to_eight_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six trained methods and two or three more; methods that are not trained are level lines and do not count."""
    folder = build_scenario(tmp_path, (*SKILL, "ditto", "fedper", "pfedme"), seeds=(0, 1), protocols=True)
    nine = tuple(load_runs([folder]))
    write_text(folder / "tables/curves.csv", to_csv(curve_rows(group_runs(nine)), column_names(CurveRow)))
    for runs, shown in ((nine, False), (tuple(run for run in nine if run.method != "pfedme"), True)):
        figure, found = drawn(partial(FIGURES["curves"], Source(folder, runs)), SCREEN, monkeypatch)
        assert ("95 % intervals" in " ".join(text for text, *_ in found)) == shown
        assert any(line.get_alpha() == 0.6 for axes in figure.axes for line in axes.lines) == shown
