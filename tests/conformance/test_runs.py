"""The fixtures through files: `samples.jsonl` of a run, scored, gives the values worked out by hand."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from pilot.evaluation import java_tools, vqa
from pilot.evaluation.scoring import score_runs
from pilot.io import atomic

from .fixture_files import Entry, load, people, split_at_spaces

VQA, GROUNDING, CAPTIONS = (load(name) for name in ("vqa", "grounding", "captions"))
CLIENT = 4


def row(task: str, kind: str, number: int, prediction: str, references: list[str], box: Any = None) -> Entry:
    """One line of `samples.jsonl`."""
    common = {"task": task, "kind": kind, "protocol": "local", "clients": [CLIENT], "id": f"{task}-{number}"}
    return common | {"prediction": prediction, "references": references, "box": box, "attributes": {}}


def rows_of_fixtures() -> list[Entry]:
    """Every scored fixture; each set of captions is a task."""
    rows = [row("ten", "vqa", i, e["prediction"], people(e["references"])) for i, e in enumerate(VQA["accuracy"])]
    rows += [row("one", "vqa", i, e["prediction"], e["references"]) for i, e in enumerate(VQA["exact_match"])
             if len(e["references"]) == 1]  # fmt: skip
    rows += [row("ground", "ground", i, e["prediction"], [], e["box"]) for i, e in enumerate(GROUNDING["answers"])]
    for entry in CAPTIONS["tokenised"]:
        rows += [row(entry["name"], "caption", int(image["id"]), image["prediction"], image["references"])
                 for image in entry["images"]]  # fmt: skip
    return rows


def expected_values() -> dict[tuple[str, str], float | None]:
    """(task, metric) -> value, means of what the fixtures expect of each example."""

    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values)

    one = [entry["expected"] for entry in VQA["exact_match"] if len(entry["references"]) == 1]
    expected: dict[tuple[str, str], float | None] = {("one", "exact_match"): mean(one)}
    for variant in vqa.VARIANTS:
        expected["ten", f"vqa_{variant}"] = mean([entry[variant] for entry in VQA["accuracy"]])
    answers = GROUNDING["answers"]
    expected["ground", "acc@0.5[original]"] = mean([entry["hit"] for entry in answers])
    expected["ground", "mean_iou[original]"] = mean([float(Fraction(entry["iou"])) for entry in answers])
    expected["ground", "parse_failure_rate"] = mean([entry["parse_failure"] for entry in answers])
    for entry in CAPTIONS["tokenised"]:
        expected |= {(entry["name"], metric): value["value"] for metric, value in entry["expected"].items()}
    return expected


def test_scores_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java_tools, "tokenise", split_at_spaces)
    monkeypatch.setattr(java_tools, "_java", lambda: "/nowhere/java")
    atomic.write_jsonl(tmp_path / "eval/samples.jsonl", rows_of_fixtures())
    score_runs([tmp_path])
    entries = atomic.read_json(tmp_path / "eval/metrics.json")["entries"]
    found = {(entry["task"], entry["metric"]): entry["value"] for entry in entries}
    assert {(entry["protocol"], entry["client"]) for entry in entries} == {("local", CLIENT)}
    for key, value in expected_values().items():
        assert found[key] == (None if value is None else pytest.approx(value, abs=1e-6)), key


def test_every_fixture_says_where_its_value_comes_from() -> None:
    for tables in (VQA, GROUNDING, CAPTIONS):
        for name, entries in tables.items():
            assert entries, name
            if name not in ("official", "hostile"):  # compared with a program, not with values
                assert all(entry["why"] for entry in entries), name
    values = [value for entry in CAPTIONS["tokenised"] for value in entry["expected"].values()]
    assert all(value["why"] for value in values)
