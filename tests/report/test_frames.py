"""Boxes in the padded square in reports: which metric leads, what is refused, and where boxes are drawn."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from pilot.errors import UserError
from pilot.report.compare.side_by_side import compare
from pilot.report.html.samples import AnswerTable
from pilot.report.numbers.comparable import check_comparable
from pilot.report.numbers.load import load_runs
from pilot.report.plots.samples import references_in

from .synthetic import reseal
from .test_comparable import edit


def report_both(run: Path, frame: str) -> None:
    """Score a run's boxes in both frames; its own is `frame`."""
    path = run / "eval" / "per_example.jsonl"
    lines = path.read_text().splitlines()
    more = [line.replace("[original]", "[padded_square]") for line in lines if "[original]" in line]
    path.write_text("\n".join([*lines, *more]) + "\n")
    path = run / "eval" / "metrics.json"
    metrics = json.loads(path.read_text())
    boxes = [entry for entry in metrics["entries"] if "[original]" in entry["metric"]]
    more_entries = [e | {"metric": e["metric"].replace("[original]", "[padded_square]")} for e in boxes]
    path.write_text(json.dumps(metrics | {"entries": [*metrics["entries"], *more_entries]}))
    reseal(run)
    config = json.loads((run / "config.json").read_text())
    own = {} if frame == "original" else {"frame": frame}
    tasks = [task | (own if task["kind"] == "ground" else {}) for task in config["tasks"]]
    edit(run / "config.json", tasks=tasks)


@pytest.mark.slow
def test_the_runs_own_frame_leads_where_both_are_reported(scenario_copy: Path) -> None:
    runs = sorted(scenario_copy.glob("runs/*/seed*"))
    for run in runs:
        report_both(run, "padded_square")
    check_comparable(load_runs([scenario_copy]))
    (grid,) = json.loads(compare([scenario_copy], format="json") or "")["scenarios"]
    boxes = {row["metric"] for row in grid["rows"] if row["task"] == "scene-ground"}
    assert boxes == {"acc@0.5[padded_square]"}
    metrics = {entry.metric for run in load_runs([scenario_copy]) for entry in run.entries}
    assert {"acc@0.5[original]", "acc@0.5[padded_square]"} <= metrics  # both are in the tables


def test_runs_that_report_both_still_have_a_frame_of_their_own(scenario_copy: Path) -> None:
    for run in sorted(scenario_copy.glob("runs/*/seed*")):
        report_both(run, "original" if run.parent.name == "pilot" else "padded_square")
    with pytest.raises(UserError, match="coordinate frame differs"):
        check_comparable(load_runs([scenario_copy]))


def test_boxes_are_drawn_where_they_are_meant() -> None:
    """640 x 480: (0.25, 0.5, 0.75, 0.875) of the square is (0.25, 0.5, 0.75, 1) of the picture."""
    words = AnswerTable()
    framed = words.number(("[0.25, 0.5, 0.75, 0.875]", ("padded_square", (640, 480))))
    plain = words.number(("[0.25, 0.5, 0.75, 0.875]", ("original", (1, 1))))
    assert (words.boxes()[framed], words.boxes()[plain]) == ([0.25, 0.5, 0.75, 1.0], [0.25, 0.5, 0.75, 0.875])
    buffer = io.BytesIO()
    Image.new("RGB", (640, 480)).save(buffer, "PNG")
    row = {"box": [0.25, 0.5, 0.75, 1.0], "image": buffer.getvalue(), "references": ["[0.25, 0.50, 0.75, 0.99]"]}
    assert references_in(row, "padded_square") == ("[0.25, 0.50, 0.75, 0.88]",)
    assert references_in(row, "original") == ("[0.25, 0.50, 0.75, 0.99]",)
