"""Replication of marks (docs/metrics.md): two disjoint sets of seeds, signs and intervals, against values by hand."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from pilot.errors import UserError
from pilot.report.compare.replication import show_replication
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.replication import replication_rows
from pilot.report.numbers.retraining import compare_trainings
from pilot.report.numbers.significance import against_baseline
from pilot.report.numbers.summary import group_runs

from .synthetic import build_scenario

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods and a reference, six seeds."""
    methods = ("pilot", "fedavg", "local", "untuned")
    return build_scenario(tmp_path_factory.mktemp("replication"), methods, seeds=range(6))


def test_interval_by_hand() -> None:
    """Only seeds vary: d 2, sqrt(V) = 1 / sqrt(3), t of two degrees. Only images vary: many degrees."""
    seeds = compare_trainings(np.array([[1.0] * 4, [2.0] * 4, [3.0] * 4]), np.arange(4))
    half = student.ppf(0.975, 2) / math.sqrt(3)
    assert seeds is not None and seeds.interval == pytest.approx((2 - half, 2 + half))
    images = compare_trainings(np.array([[0.0, 1.0, 2.0, 5.0]] * 3), np.arange(4))
    half = student.ppf(0.975, 3) * np.std([0, 1, 2, 5], ddof=1) / 2
    assert images is not None and images.interval == pytest.approx((2 - half, 2 + half))
    equal = compare_trainings(np.zeros((3, 4)), np.arange(4))
    assert equal is not None and equal.interval == (0.0, 0.0)


def test_each_set_has_its_own_seeds(scenario: Path) -> None:
    """The rows are those of the tests on the first three seeds and the means of the next three."""
    rows = replication_rows(group_runs(load_runs([scenario])), 3)
    assert {(row.method, row.other) for row in rows if row.compared == "baseline"} == {
        ("pilot", "fedavg"), ("local", "fedavg")
    }  # fmt: skip
    assert len([row for row in rows if row.compared == "pairs" and row.test == "training"]) == 3 * 3
    groups = {group.label: group for group in group_runs(load_runs([scenario]))}
    task, metric = "scene-vqa", "exact_match"

    def values(method: str, seeds: range) -> np.ndarray:
        runs = [run for run in groups[method].runs if run.seed in seeds]
        by_client = [run.per_example[task, "personalised", metric] for run in runs]
        ids = sorted(by_client[0][0])
        return np.array([[np.mean([each[c][i] for c in each]) for i in ids] for each in by_client])

    for row in (row for row in rows if row.task == task and row.compared == "baseline"):
        changes = [values(row.method, seeds) - values("fedavg", seeds) for seeds in (range(3), range(3, 6))]
        assert row.difference == pytest.approx(changes[0].mean()) and row.again == pytest.approx(changes[1].mean())
        if row.test == "training":
            found = compare_trainings(changes[0], np.arange(changes[0].shape[1]))
            assert found is not None
            low, high = found.interval
        else:
            by_image = changes[0].mean(axis=0)
            half = student.ppf(0.975, len(by_image) - 1) * by_image.std(ddof=1) / len(by_image) ** 0.5
            low, high = by_image.mean() - half, by_image.mean() + half
        assert (row.ci_low, row.ci_high) == pytest.approx((low, high))
        assert row.same_sign == (row.difference * row.again > 0)
        assert row.confirmed == (row.same_sign and low <= row.again <= high)


def test_correction_is_over_each_family(scenario: Path) -> None:
    """The same comparison has a larger p among all pairs than among those with the baseline alone."""
    rows = replication_rows(group_runs(load_runs([scenario])), 3)
    for test in ("training", "these-models"):
        families = [
            {(row.task, row.method, row.other): row for row in rows if (row.test, row.compared) == (test, family)}
            for family in ("baseline", "pairs")
        ]
        for (task, method, other), row in families[0].items():
            among_all = families[1].get((task, method, other)) or families[1][task, other, method]
            assert among_all.p_holm >= row.p_holm and abs(among_all.difference) == pytest.approx(abs(row.difference))
    assert all(row.marked == (row.p_holm < 0.05) for row in rows)


def test_marks_are_those_of_a_table_of_the_first_seeds(scenario: Path) -> None:
    """References have no rows here, but a table corrects for their tests too."""
    groups = group_runs(load_runs([scenario]))
    first = [replace(each, runs=tuple(run for run in each.runs if run.seed < 3)) for each in groups]
    table = {(row.test, row.task, row.method): row.p_holm for row in against_baseline(first, "fedavg")}
    rows = [row for row in replication_rows(groups, 3) if row.compared == "baseline"]
    assert {(row.test, row.task, row.method): row.p_holm for row in rows} == {
        key: p for key, p in table.items() if key[2] != "untuned"
    }


def test_summary_counts_the_rows(scenario: Path) -> None:
    text = show_replication([scenario], 3, format="csv") or ""
    rows = list(csv.DictReader(io.StringIO(text)))
    table = (show_replication([scenario], 3, format="markdown") or "").split("\n")
    for test in ("training", "these-models"):
        for family in ("baseline", "pairs"):
            own = [row for row in rows if (row["test"], row["compared"]) == (test, family)]
            marked = [row for row in own if row["marked"] == "True"]
            same = [row for row in marked if row["same_sign"] == "True"]
            confirmed = [row for row in same if row["inside"] == "True"]
            share = f"{len(confirmed) / len(marked):.3f}" if marked else "-"
            cells = ["scenario2", test, family, len(own), len(marked), len(same), len(confirmed), share]
            assert f"| {' | '.join(map(str, cells))} |" in table
    assert any(row["marked"] == "True" for row in rows)


def test_bad_input(scenario: Path) -> None:
    with pytest.raises(UserError, match="expected 8 seeds that all methods have, found 6"):
        show_replication([scenario], 4)
    with pytest.raises(UserError, match="--seeds 1: expected at least 2"):
        show_replication([scenario], 1)
    with pytest.raises(UserError, match="expected at least two methods"):
        show_replication([scenario / "runs/pilot"], 3)
