"""`pilot-bench compare --reference`: agreement of fresh runs with the committed reference tables.

A cell is a method's primary metric on a task (personalised). Fresh runs agree if their mean is in the reference's
95 % interval of the mean over seeds, clients and images. If the reference has no interval, because all its scores are
equal, the means have to be equal.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pilot.errors import UserError
from pilot.report.numbers.load import load_methods, load_runs
from pilot.report.numbers.order import method_key
from pilot.report.numbers.statistics import ROUNDING
from pilot.report.numbers.summary import Group, MainRow, group_runs, main_rows, primary_metric
from pilot.report.tables.render import markdown_table, rows_to_csv

Verdict = Literal["equal", "agrees", "differs", "not here", "not in the reference"]
REFERENCE = Path(__file__).resolve().parents[3] / "results" / "reference"
COLUMNS = ("method", "task", "metric", "reference", "ci_low", "ci_high", "here", "verdict")


@dataclass(frozen=True)
class ReferenceRow:
    """One cell of the reference table beside the fresh value; None where a side has no value."""

    method: str
    task: str
    metric: str
    reference: float | None
    ci_low: float | None
    ci_high: float | None
    here: float | None
    verdict: Verdict


def against_reference(scenario_dir: Path, reference: Path | None = None) -> list[ReferenceRow]:
    """Compare the runs of a scenario with the reference tables; return a row per method and task of either side.

    Args:
        scenario_dir: `results/<profile>/<scenario>`.
        reference: folder with `<profile>/<scenario>/main.csv`; `results/reference` by default.

    Raises:
        UserError: there are no reference tables of this profile and scenario, or no finished runs here.
    """
    folder = scenario_dir.resolve()
    tables = REFERENCE if reference is None else reference
    path = tables / folder.parent.name / folder.name / "main.csv"
    if not path.is_file():
        known = sorted("/".join(each.parts[-3:-1]) for each in tables.glob("*/*/main.csv"))
        raise UserError(
            f"{path}: no reference tables of {folder.parent.name}/{folder.name}. Expected one of: "
            f"{', '.join(known) or 'none'}; they are in a clone of the repository, not in an installed package."
        )
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["protocol"] == "personalised"]
    named = {line["method"] for line in lines}
    present = sorted(name for name in named if (scenario_dir / "runs" / name).is_dir())
    groups = group_runs(load_methods(scenario_dir, present) if present else load_runs([scenario_dir]))
    fresh = {(row.method, row.task, row.metric): row for row in _primary(groups)}
    metrics = {(row.task, row.metric) for row in fresh.values()}
    expected = {(line["method"], line["task"], line["metric"]): line for line in lines}
    keys = [key for key in expected if key[1:] in metrics] + [key for key in fresh if key not in expected]
    tasks = {task.name: position for group in groups for position, task in enumerate(group.tasks)}
    keys.sort(key=lambda key: (*method_key(key[0]), tasks[key[1]]))
    return [_row(key, expected.get(key), fresh.get(key)) for key in keys]


def _primary(groups: Sequence[Group]) -> list[MainRow]:
    """Return the personalised rows of each task's primary metric."""
    wanted = {(task.name, primary_metric(group, task)) for group in groups for task in group.tasks}
    rows = main_rows(groups, only={metric for _, metric in wanted})
    return [row for row in rows if row.protocol == "personalised" and (row.task, row.metric) in wanted]


def _row(key: tuple[str, str, str], line: dict[str, str] | None, row: MainRow | None) -> ReferenceRow:
    expected, low, high = (_number(line[name]) if line else None for name in ("mean", "ci_low", "ci_high"))
    here = row.mean if row else None
    return ReferenceRow(*key, expected, low, high, here, _verdict(line is None, expected, low, high, here))


def _verdict(
    unknown: bool, expected: float | None, low: float | None, high: float | None, here: float | None
) -> Verdict:
    if unknown:
        return "not in the reference"
    if here is None or expected is None:
        return "equal" if here is expected else "not here" if here is None else "differs"
    if abs(here - expected) <= ROUNDING:
        return "equal"
    return "agrees" if low is not None and high is not None and low <= here <= high else "differs"


def _number(text: str) -> float | None:
    return float(text) if text else None


def as_text(rows: Sequence[ReferenceRow], form: str) -> str:
    """Format the rows as one of the formats of `compare`.

    Raises:
        UserError: LaTeX, which is not supported with a reference.
    """
    if form == "json":
        return json.dumps([asdict(row) for row in rows], indent=2) + "\n"
    if form == "latex":
        raise UserError("--format latex: not supported with --reference. Expected table, markdown, csv or json.")
    return rows_to_csv(COLUMNS, [asdict(row) for row in rows]) if form == "csv" else _table(rows)


def _table(rows: Sequence[ReferenceRow]) -> str:
    """Format the rows as a Markdown table with a sentence that counts the verdicts."""
    titles, lines = [*COLUMNS[:3], "reference", "95 % interval", "here", "verdict"], []
    for row in rows:
        interval = "" if row.ci_low is None or row.ci_high is None else f"[{row.ci_low:.3f}, {row.ci_high:.3f}]"
        expected, here = ("-" if value is None else f"{value:.3f}" for value in (row.reference, row.here))
        lines.append([row.method, row.task, row.metric, expected, interval, here, row.verdict])
    return "\n".join([*markdown_table(titles, lines, len(titles)), "", summary(rows)]) + "\n"


def summary(rows: Sequence[ReferenceRow]) -> str:
    """Return a sentence with the number of cells that are equal, agree, differ, and are not compared."""
    equal, within, outside = (sum(row.verdict == name for row in rows) for name in ("equal", "agrees", "differs"))
    rest = len(rows) - equal - within - outside
    return f"{equal} cells equal, {within} within the reference's interval, {outside} outside it, {rest} not compared."


def agrees(rows: Sequence[ReferenceRow]) -> bool:
    """Return whether at least one cell was compared and none differs."""
    compared = [row for row in rows if row.verdict in ("equal", "agrees", "differs")]
    return bool(compared) and all(row.verdict != "differs" for row in compared)
