"""`compare`: formats, refusals and marks."""

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from pilot.errors import UserError
from pilot.report.compare import compare

from .synthetic import build_run


def test_table_shows_quality_and_cost_uncut(scenario: Path) -> None:
    console = Console(file=io.StringIO(), width=60)
    assert compare([scenario], console=console) is None
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("pilot", "acc@0.5[original]", "0.844 ± 0.013 ↑ *", "43.20", "125,000", "61.5", "worst"):
        assert part in text, part
    assert "…" not in text and console.width == 60


def test_json_is_stable_and_complete(scenario: Path) -> None:
    text = compare([scenario], format="json")
    assert text is not None and text == compare([scenario], format="json")
    (grid,) = json.loads(text)["scenarios"]
    assert grid["scenario"] == "scenario2" and grid["baseline"] == "fedavg" and len(grid["rows"]) == 8 * 3
    first = grid["rows"][0]
    assert (first["method"], first["task"], first["metric"]) == ("pilot", "scene-vqa", "exact_match")
    assert first["best"] and first["megabytes"] == 43.2 and first["reference"] is False
    assert [row["method"] for row in grid["rows"] if row["reference"]][::3] == [
        "central",
        "untuned",
        "majority",
    ]


def test_other_formats(scenario: Path) -> None:
    table = compare([scenario], format="csv")
    assert table is not None and len(list(csv.DictReader(io.StringIO(table)))) == 24
    assert (compare([scenario], format="markdown") or "").startswith("## scenario2")
    assert r"\begin{tabular}" in (compare([scenario], format="latex") or "")
    with pytest.raises(UserError, match="--format yaml: unknown. Expected one of: table, markdown"):
        compare([scenario], format="yaml")


def test_without_the_default_baseline_it_says_so(scenario: Path) -> None:
    console = Console(file=io.StringIO(), width=300)
    compare([scenario / "runs" / "pilot", scenario / "runs" / "local"], console=console)
    assert "No fedavg among the runs" in console.file.getvalue()  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="--baseline fedmoe: not among the runs"):
        compare([scenario / "runs" / "pilot"], baseline="fedmoe", format="json")


def test_other_scenarios_are_compared_only_when_asked(scenario: Path, tmp_path: Path) -> None:
    other = build_run(
        tmp_path / "embedded" / "scenario1" / "runs" / "fedavg" / "seed0",
        *("fedavg", 0),
        scenario="scenario1",
        digests={"data": "other", "partition": "p" * 64, "backbone": "b" * 64},
    )
    with pytest.raises(UserError, match="data digest differs"):
        compare([scenario, other], format="json")
    grids = json.loads(compare([scenario, other], format="json", allow_different=True) or "")["scenarios"]
    assert [grid["scenario"] for grid in grids] == ["scenario1", "scenario2"]


def test_two_copies_of_a_scenario_get_their_own_rows(scenario: Path, scenario_copy: Path) -> None:
    grids = json.loads(compare([scenario, scenario_copy], format="json", baseline="fedavg") or "")
    methods = {row["method"] for row in grids["scenarios"][0]["rows"]}
    assert len(methods) == 16 and "pilot [copy]" in methods
