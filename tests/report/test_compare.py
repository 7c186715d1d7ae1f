"""`compare`: formats, refusals and marks."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

from pilot.cli.options import TableFormat
from pilot.errors import UserError
from pilot.report.compare.side_by_side import FORMATS, compare
from pilot.report.tables.write import write_tables

from .synthetic import build_run, reseal


def grid_of(paths: Sequence[Path], **options: Any) -> dict[str, Any]:
    """The one scenario that `compare --format json` writes."""
    (grid,) = json.loads(compare(paths, format="json", **options) or "")["scenarios"]
    return dict(grid)


def printed(paths: Sequence[Path], width: int = 300, **options: Any) -> str:
    """What `compare` prints in a terminal of that width."""
    console = Console(file=io.StringIO(), width=width)
    assert compare(paths, console=console, **options) is None
    assert console.width == width
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_table_shows_quality_and_cost_uncut(scenario: Path) -> None:
    text = printed([scenario], width=60)
    for part in ("pilot", "acc@0.5[original]", "0.844 ± 0.013 ↑ *", "43.20", "125,000", "61.5", "worst", "local"):
        assert part in text, part
    assert "…" not in text and "↑ ↓: significantly above or below fedavg" in text


@pytest.mark.slow
def test_every_format_shows_intervals_local_protocol_marks_and_cost(scenario: Path) -> None:
    (row,) = [r for r in grid_of([scenario])["rows"] if (r["method"], r["task"]) == ("pilot", "scene-ground")]
    assert row["best"] and row["difference_to_baseline"] > 0 and row["p_value"] <= row["p_holm"] < 0.05
    ends, local = f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]", f"{row['local_mean']:.3f}"
    mean, std = f"{row['mean']:.3f}", f"{row['std']:.3f}"
    assert 0 < row["ci_low"] < row["mean"] < row["ci_high"] <= 1
    markdown, latex = compare([scenario], format="markdown") or "", compare([scenario], format="latex") or ""
    cells = next(line for line in markdown.splitlines() if line.startswith("| pilot")).split(" | ")
    assert f"**{mean} ± {std}** ↑ {ends}" in cells and local in cells and cells[-2:] == ["43.20", "125,000 |"]
    assert rf"\textbf{{{mean} $\pm$ {std}}} $\uparrow$ {{\scriptsize {ends}}} & " in latex and r"& 43.20 &" in latex
    table = printed([scenario])
    assert ends in table and f" {local} " in table
    (line,) = [
        line
        for line in csv.DictReader(io.StringIO(compare([scenario], format="csv") or ""))
        if (line["method"], line["task"]) == ("pilot", "scene-ground")
    ]
    assert (line["ci_low"], line["local_mean"]) == (f"{row['ci_low']:.6f}", f"{row['local_mean']:.6f}")


def test_json_is_stable_and_complete(scenario: Path) -> None:
    assert compare([scenario], format="json") == compare([scenario], format="json")
    grid = grid_of([scenario])
    assert grid["allowed_differences"] == {"allowed": [], "found": []}
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
    assert FORMATS == get_args(TableFormat)


def test_without_the_default_baseline_it_says_so(scenario: Path) -> None:
    assert "No fedavg among the runs" in printed([scenario / "runs" / "pilot", scenario / "runs" / "local"])
    with pytest.raises(UserError, match="--baseline fedmoe: not among the runs"):
        compare([scenario / "runs" / "pilot"], baseline="fedmoe", format="json")


def test_scenarios_have_a_grid_each(scenario: Path, tmp_path: Path) -> None:
    """docs/compare.md: folders of different scenarios, which have other data, in one call."""
    other = build_run(
        tmp_path / "embedded" / "scenario1" / "runs" / "fedavg" / "seed0",
        *("fedavg", 0),
        scenario="scenario1",
        digests={"data": "other", "partition": "p" * 64, "backbone": "b" * 64},
    )
    grids = json.loads(compare([scenario, other], format="json") or "")["scenarios"]
    assert [grid["scenario"] for grid in grids] == ["scenario1", "scenario2"]


@pytest.mark.slow
def test_every_format_says_what_was_allowed(scenario_copy: Path) -> None:
    path = scenario_copy / "runs" / "fedmoe" / "seed2" / "config.json"
    path.write_text(path.read_text().replace('"rounds": 3', '"rounds": 5'))
    allow: dict[str, Any] = {"allow_different": ["budget", "seeds"]}
    note = "Allowed difference (--allow-different): budget rounds differs: 3: "
    odd = f"5: {scenario_copy}/runs/fedmoe/seed2."
    idle = "Allowed to differ (--allow-different), but the same in all runs: seeds."
    for text in (printed([scenario_copy], width=2_000, **allow), compare([scenario_copy], format="markdown", **allow)):
        assert text and note in text and odd in text and idle in text
    latex = compare([scenario_copy], format="latex", **allow) or ""
    assert note in latex and idle in latex and r"runs/fedmoe/seed2." in latex
    found = json.loads(compare([scenario_copy], format="json", **allow) or "")["scenarios"][0]["allowed_differences"]
    assert found["allowed"] == ["budget", "seeds"] and [each["what"] for each in found["found"]] == ["budget"]
    for line in csv.DictReader(io.StringIO(compare([scenario_copy], format="csv", **allow) or "")):
        assert (line["allowed_differences"], line["found_differences"]) == ("budget;seeds", "budget")
    write_tables(scenario_copy, allow_different=["budget"])
    assert note in (scenario_copy / "tables" / "main.md").read_text()


def test_boxes_in_another_frame_are_shown_when_asked(scenario_copy: Path) -> None:
    for run in (scenario_copy / "runs" / "pilot").iterdir():
        for name in ("metrics.json", "per_example.jsonl"):
            path = run / "eval" / name
            path.write_text(path.read_text().replace("[original]", "[padded_square]"))
        reseal(run)
    with pytest.raises(UserError, match="coordinate frame differs"):
        compare([scenario_copy], format="json")
    grid = grid_of([scenario_copy], allow_different=["frame"])
    rows = {row["method"]: row for row in grid["rows"] if row["task"] == "scene-ground"}
    assert (rows["pilot"]["metric"], rows["pilot"]["status"]) == ("acc@0.5[padded_square]", "ok")
    assert rows["fedmoe"]["metric"] == "acc@0.5[original]" and rows["pilot"]["difference_to_baseline"] > 0


def test_two_copies_of_a_scenario_get_their_own_rows(scenario: Path, scenario_copy: Path) -> None:
    grids = json.loads(compare([scenario, scenario_copy], format="json", baseline="fedavg") or "")
    methods = {row["method"] for row in grids["scenarios"][0]["rows"]}
    assert len(methods) == 16 and "pilot [copy]" in methods
