"""What docs/results.md and docs/scenarios.md say of files and fields is what the code has."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from pilot.config.scenario import Scenario, TaskConfig
from pilot.report.numbers.cost import _COUNTS, _TIMES, CostRow, TimingRow
from pilot.report.numbers.faults import FaultRow
from pilot.report.numbers.significance import SignificanceRow
from pilot.report.numbers.studies import StudyRow
from pilot.report.numbers.summary import ClientRow, MainRow
from pilot.report.plots.write import FIGURES
from pilot.report.tables.render import column_names
from pilot.report.tables.tuning import Trial

from .pages import ROOT, page_name, pages

RESULTS = (ROOT / "docs/results.md").read_text(encoding="utf-8")
SCENARIOS = (ROOT / "docs/scenarios.md").read_text(encoding="utf-8")
COLUMNS = {
    "main.csv": MainRow, "per_client.csv": ClientRow, "significance.csv": SignificanceRow, "cost.csv": CostRow,
    "timing.csv": TimingRow,
}  # fmt: skip


NOT_OURS = {"vip_family.py", "loadDataset.py"}
"""The reader's file of docs/add-a-backbone.md, and a script of a public data set."""


@pytest.mark.parametrize("page", [page for page in pages() if page.parent.name != "notes"], ids=page_name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    """With their folder, or at least by name; notes tell of what was."""
    files = [
        path
        for name in ("pilot", "baselines", "pipelines", "tests", "examples", "docs")
        for path in (ROOT / name).rglob("*.*")
    ]
    ours = ["/" + path.relative_to(ROOT).as_posix() for path in files]
    named = set(re.findall(r"`([\w./-]+\.(?:py|smk))(?:::\w+)?`", page.read_text(encoding="utf-8"))) - NOT_OURS
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in ours)] == []


@pytest.mark.parametrize("page", pages(), ids=page_name)
def test_no_sentence_becomes_a_list_item(page: Path) -> None:
    """A line of a paragraph that begins with a number and a full stop would be shown as an item of a list."""
    marker = re.compile(r" *(?:\d+([.)])|[-*+]) ")
    kind, wrong = "", []
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for before, line in pairwise(["", *text.splitlines()]):
        kind = kind if before.strip() else ""
        if found := marker.match(line):
            if before.strip() and found[1] and kind != found[1]:
                wrong.append(line)
            kind = found[1] or ""
    assert wrong == []


def section(heading: str) -> str:
    """A section of docs/results.md, up to the next heading."""
    return RESULTS.split(f"{heading}\n")[1].split("\n#")[0]


def first_cells(text: str) -> list[str]:
    """The names in code in the first column of a table, in order."""
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(?:tasks\[\]\.)?(\w+)`", row)]


@pytest.mark.parametrize("file", COLUMNS)
def test_columns_of_tables(file: str) -> None:
    assert first_cells(section(f"### `{file}`")) == column_names(COLUMNS[file])


@pytest.mark.parametrize(("file", "row"), [("faults.csv", FaultRow), ("tuning.csv", Trial), ("<part>.csv", StudyRow)])
def test_columns_of_other_tables(file: str, row: type) -> None:
    lines = section("## Other tables").splitlines()
    (line,) = [line for line in lines if line.startswith("| `") and line.split("`")[1].endswith(f"/{file}")]
    assert re.findall(r"`(\w+)`", line.split("|")[3]) == column_names(row)


def test_quantities() -> None:
    for file, names in (("cost.csv", {"bytes", "parameters", *_COUNTS}), ("timing.csv", {name for name, _ in _TIMES})):
        (line,) = [line for line in section(f"### `{file}`").splitlines() if line.startswith("| `quantity`")]
        assert set(re.findall(r"`(\w+)`", line.split("|")[2])) == names


def test_figures() -> None:
    assert first_cells(section("## Figures")) == list(FIGURES)


def test_the_scenario_that_is_shown_is_the_file() -> None:
    shown = re.findall(r"^```yaml\n(.*?)^```", SCENARIOS, re.MULTILINE | re.DOTALL)[0]
    assert yaml.safe_load(shown) == yaml.safe_load(
        (ROOT / "pipelines/scenarios/smoke.yaml").read_text(encoding="utf-8")
    )
    assert {*first_cells(SCENARIOS)} >= {*Scenario.model_fields, *TaskConfig.model_fields} - {"tasks"}
