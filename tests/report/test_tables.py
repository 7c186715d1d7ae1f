"""Tables on known numbers, and the same bytes from the same results."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilot.errors import UserError
from pilot.io.atomic import read_json, read_jsonl, write_json, write_jsonl
from pilot.report.numbers import summary
from pilot.report.numbers.intervals import bootstrap_clients
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.summary import group_runs
from pilot.report.tables.render import escape
from pilot.report.tables.write import write_tables

from .synthetic import SKILL, write_metrics

NAMES = ("main.csv", "per_client.csv", "cost.csv", "significance.csv", "main.md", "main.tex")


def rows(path: Path, **where: str) -> list[dict[str, str]]:
    """The lines of a CSV file whose fields have the given values."""
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if where.items() <= row.items()]


def set_scores(run: Path, task: str, metric: str, values: dict[int, list[float]]) -> None:
    """Replace a metric's personalised values per client, in both evaluation files."""
    metrics, kept = read_json(run / "eval" / "metrics.json"), []
    for entry in metrics["entries"]:
        if (entry["task"], entry["metric"], entry["protocol"]) == (task, metric, "personalised"):
            entry["value"] = sum(values[entry["client"]]) / len(values[entry["client"]])
    for row in read_jsonl(run / "eval" / "per_example.jsonl"):
        if (row["task"], row["metric"], row["protocol"]) != (task, metric, "personalised"):
            kept.append(row)
    start: dict[str, Any] = {"task": task, "metric": metric, "protocol": "personalised"}
    kept += [
        {**start, "client": client, "id": f"e{number}", "value": value}
        for client, scores in values.items()
        for number, value in enumerate(scores)
    ]
    write_jsonl(run / "eval" / "per_example.jsonl", kept)
    write_metrics(run / "eval", metrics)


def test_mean_std_and_worst_client_by_hand(scenario_copy: Path) -> None:
    runs = scenario_copy / "runs" / "pilot"
    for folder in scenario_copy.glob("runs/pilot/*/eval/condition-*"):
        shutil.rmtree(folder)  # they are of other questions than the two of this test
    for seed, right in enumerate(([1.0, 0.0], [1.0, 1.0], [0.0, 0.0])):
        scores = {0: right, 1: [1.0, 0.0], 2: [1.0, 1.0]}
        set_scores(runs / f"seed{seed}", "scene-vqa", "exact_match", scores)
    write_tables(scenario_copy, "fedavg")
    where = {"method": "pilot", "task": "scene-vqa", "metric": "exact_match"}
    (row,) = rows(scenario_copy / "tables" / "main.csv", protocol="personalised", **where)
    # Seeds' means over clients: (.5+.5+1)/3 = 2/3, (1+.5+1)/3 = 5/6, (0+.5+1)/3 = 1/2; std (ddof 1) is 1/6.
    assert (row["mean"], row["std"], row["num_seeds"], row["status"]) == ("0.666667", "0.166667", "3", "ok")
    assert float(row["ci_low"]) < 2 / 3 < float(row["ci_high"])
    (worst,) = rows(scenario_copy / "tables" / "main.csv", protocol="worst_client", **where)
    # Minima over clients: .5, .5, 0.
    assert (worst["mean"], worst["ci_low"]) == ("0.333333", "")


def test_one_seed_has_no_std(scenario: Path) -> None:
    (row,) = rows(scenario / "tables" / "main.csv", method="untuned", metric="CIDEr", protocol="personalised")
    assert row["std"] == "" and row["num_seeds"] == "1" and row["ci_low"] != ""


def test_unavailable_is_empty_and_explained(scenario: Path) -> None:
    (row,) = rows(scenario / "tables" / "main.csv", method="pilot", metric="SPICE", protocol="personalised")
    assert (row["mean"], row["ci_low"], row["status"]) == ("", "", "unavailable")
    assert "SPICE: no CoreNLP jars" in (scenario / "tables" / "main.md").read_text()


def test_corpus_metric_is_not_resampled_over_sentences(scenario: Path) -> None:
    # The fixture's BLEU-4 is 0.9 times the mean of its sentences: only seeds and clients may be resampled,
    # and one run of one model has no interval.
    entries = rows(scenario / "tables" / "per_client.csv", method="fedavg", metric="BLEU-4", protocol="personalised")
    values_SC = np.array([float(entry["value"]) for entry in entries]).reshape(3, 3)
    expected = bootstrap_clients(values_SC, bounds=(0.0, 1.0))
    where = {"metric": "BLEU-4", "protocol": "personalised"}
    (row,) = rows(scenario / "tables" / "main.csv", method="fedavg", **where)
    assert (float(row["ci_low"]), float(row["ci_high"])) == pytest.approx(expected, abs=1e-6)
    (reference,) = rows(scenario / "tables" / "main.csv", method="majority", **where)
    assert reference["ci_low"] == ""


def test_parse_failures_are_a_column_and_not_a_row(scenario: Path) -> None:
    table = scenario / "tables" / "main.csv"
    assert not rows(table, metric="parse_failure_rate")
    entries = rows(
        scenario / "tables" / "per_client.csv",
        **{"method": "pilot", "metric": "parse_failure_rate", "protocol": "personalised"},
    )
    expected = np.mean([float(entry["value"]) for entry in entries])
    (row,) = rows(table, method="pilot", metric="acc@0.5[original]", protocol="personalised")
    assert float(row["parse_failure_rate"]) == pytest.approx(expected, abs=1e-6)
    assert all(row["parse_failure_rate"] == "" for row in rows(table, task="scene-vqa"))


def test_methods_come_in_one_order(scenario: Path) -> None:
    table = rows(scenario / "tables" / "main.csv", metric="exact_match", protocol="personalised")
    expected = ["pilot", "fedavg", "fedprox", "fedmoe", "local", "central", "untuned", "majority"]
    assert [row["method"] for row in table] == expected


def test_best_is_never_a_reference(scenario: Path) -> None:
    lines = (scenario / "tables" / "main.md").read_text().splitlines()
    bold = [line for line in lines if "**" in line]
    assert bold and all(line.startswith("| pilot") or line.startswith("| local") for line in bold)
    central = next(line for line in lines if line.startswith("| *central* (reference)"))
    assert "**" not in central and "†" not in central


def test_cost_adds_up(scenario: Path) -> None:
    table = scenario / "tables" / "cost.csv"
    where = {"method": "fedavg", "seed": "0", "quantity": "bytes", "direction": "up"}
    found = {(row["round"], row["component"]): int(row["value"]) for row in rows(table, **where)}
    # Nine clients send 400,000 + 100,000 bytes in each of three rounds.
    assert found["1", "text_adapter"] == 9 * 400_000
    assert found["", "connector"] == 3 * 9 * 100_000
    assert found["", ""] == 3 * 9 * 500_000
    assert rows(table, method="untuned", quantity="optimiser_steps")[0]["value"] == "0"


def test_time_is_split_and_memory_is_that_of_server_and_clients(scenario: Path) -> None:
    lines = rows(scenario / "tables" / "timing.csv", method="pilot", seed="1")
    assert {(line["quantity"], line["unit"], float(line["value"])) for line in lines} == {
        ("wall_seconds", "s", 61.5), ("train_seconds", "s", 50.0), ("exchange_seconds", "s", 0.25),
        ("aggregate_seconds", "s", 1.5), ("checkpoint_seconds", "s", 0.75), ("peak_memory_mb", "MB", 900.0),
        ("client_peak_memory_mb", "MB", 880.0),
    }  # fmt: skip


def test_significance_holds_every_other_method(scenario: Path) -> None:
    table = rows(scenario / "tables" / "significance.csv")
    assert [row["test"] for row in table] == ["training"] * 3 * 7 + ["these-models"] * 3 * 7
    assert all(row["baseline"] == "fedavg" for row in table)
    assert all(float(row["p_holm"]) >= float(row["p_value"]) > 0 for row in table)


def test_unknown_baseline_is_refused_before_anything_is_written(scenario_copy: Path) -> None:
    shutil.rmtree(scenario_copy / "tables")
    with pytest.raises(UserError, match="--baseline fedavgg.*pilot, fedavg"):
        write_tables(scenario_copy, "fedavgg")
    assert not (scenario_copy / "tables").exists()


@pytest.mark.slow
def test_same_results_same_bytes(scenario: Path, scenario_copy: Path) -> None:
    for timing in scenario_copy.glob("runs/*/*/timing.json"):
        write_json(timing, json.loads(timing.read_text()) | {"wall_seconds": 7.0})
    shutil.rmtree(scenario_copy / "tables")
    write_tables(scenario_copy, "fedavg")
    for name in NAMES:
        assert (scenario_copy / "tables" / name).read_bytes() == (scenario / "tables" / name).read_bytes(), name


@pytest.mark.slow
def test_runs_of_other_methods_beside_change_nothing(scenario: Path, scenario_copy: Path) -> None:
    """A study puts further runs into the folder, and they may be unfinished."""
    (scenario_copy / "runs" / "pilot+no-ata" / "seed0").mkdir(parents=True)
    shutil.rmtree(scenario_copy / "tables")
    with pytest.raises(UserError, match=r"pilot\+no-ata/seed0: this run is not complete"):
        write_tables(scenario_copy, "fedavg")
    write_tables(scenario_copy, "fedavg", methods=list(SKILL))
    for name in NAMES:
        assert (scenario_copy / "tables" / name).read_bytes() == (scenario / "tables" / name).read_bytes(), name
    write_tables(scenario_copy, "fedavg", methods=["fedavg", "local"])
    assert {row["method"] for row in rows(scenario_copy / "tables" / "main.csv")} == {"fedavg", "local"}
    with pytest.raises(UserError, match=r"unknown method fedzoo. Expected some of: central, fedavg, .*pilot\+no-ata"):
        write_tables(scenario_copy, "fedavg", methods=["fedavg", "fedzoo"])


def test_latex_is_escaped_and_rectangular(scenario: Path) -> None:
    text = (scenario / "tables" / "main.tex").read_text()
    assert r"exact\_match" in text and r"\toprule" in text and text.isascii()
    columns = re.search(r"\\begin{tabular}{(l r*)}".replace(" ", ""), text)
    assert columns
    body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 8 and {len(re.split(r"(?<!\\)&", line)) for line in lines} == {len(columns[1])}
    assert escape("a_b & 5 % >= {x}") == r"a\_b \& 5 \% $\geq$ \{x\}"


def test_metrics_that_are_not_ours_have_no_interval(scenario: Path) -> None:
    """docs/protocols.md: lm-eval computes its own; without scores by example and limits nothing bounds an interval."""
    group = group_runs(load_runs([scenario]))[0]
    assert summary._interval(group, "chartqa", "relaxed_overall", "personalised", np.array([[45.3, 50.1]])) is None
