"""The grid of methods x tasks on primary metrics, which `main.md`, `main.tex` and `compare` all show."""

from collections.abc import Sequence
from dataclasses import dataclass

from pilot.report.cost import CostSummary, summarise
from pilot.report.load import Task
from pilot.report.order import PRIMARY_METRIC, REFERENCE_NOTES, REFERENCES
from pilot.report.significance import SignificanceRow, against_baseline, best_and_close
from pilot.report.statistics import LEVEL
from pilot.report.summary import Group, MainRow, main_rows, unavailable_reasons


@dataclass(frozen=True)
class Cell:
    """A method's primary metric on one task. `row` and `worst` are None where the method has no such task.

    Attributes:
        row: personalised protocol, mean over the task's clients and seeds.
        worst: mean over seeds of the worst client.
        best: best of the federated methods.
        close: not significantly different from the best.
        against: the row against the baseline, None where nothing was tested.
    """

    row: MainRow | None
    worst: MainRow | None
    best: bool
    close: bool
    against: SignificanceRow | None

    @property
    def arrow(self) -> str:
        """`up` or `down` for significantly above or below the baseline, else empty."""
        if self.against is None or self.against.p_holm >= LEVEL:
            return ""
        return "up" if self.against.difference > 0 else "down"


@dataclass(frozen=True)
class Line:
    """One method: a cell per task, its cost, and whether it is a reference row."""

    method: str
    reference: bool
    num_seeds: int
    cells: tuple[Cell, ...]
    cost: CostSummary


@dataclass(frozen=True)
class Headline:
    """One scenario's grid. `baseline` is None when it is not among the runs."""

    scenario: str
    tasks: tuple[Task, ...]
    lines: tuple[Line, ...]
    baseline: str | None
    unavailable: tuple[str, ...]


def build_headlines(groups: Sequence[Group], baseline: str) -> list[Headline]:
    """One grid per scenario among `groups`, methods in table order, references last."""
    tests = against_baseline(groups, baseline)
    grids = []
    for scenario in sorted({group.scenario for group in groups}):
        members = [group for group in groups if group.scenario == scenario]
        tasks = tuple(dict.fromkeys(task for group in members for task in group.tasks))
        rows = {(row.method, row.task, row.metric, row.protocol): row for row in main_rows(members, intervals=False)}
        marks = {task.name: best_and_close(members, task) for task in tasks}
        tested = {(row.method, row.task): row for row in tests if row.scenario == scenario}
        lines = [_line(group, tasks, rows, marks, tested) for group in members]
        found = baseline if any(group.label == baseline for group in members) else None
        reasons = tuple(unavailable_reasons(members))
        grids.append(Headline(scenario, tasks, tuple(sorted(lines, key=lambda line: line.reference)), found, reasons))
    return grids


def footnotes(grid: Headline) -> list[str]:
    """What a reader needs to quote the grid: metrics, protocol, marks, references, what is unavailable."""
    metrics = "; ".join(f"{task.name}: {PRIMARY_METRIC[task.kind]}" for task in grid.tasks)
    seeds = sorted({line.num_seeds for line in grid.lines})
    notes = [
        f"Metrics: {metrics}. CIDEr is on a scale of 0 to 10, the others 0 to 1.",
        "Protocol: personalised (each client's model on its task's test set, mean over the task's clients); "
        f"mean ± standard deviation (ddof 1) over seeds ({' or '.join(map(str, seeds))} per row).",
        "Worst: per seed the task's worst client, mean over seeds; where one model serves all, the mean.",
        "Bold (and * in a terminal): best method of the column, references aside. †: not significantly "
        "different from it (paired permutation over images, Holm-corrected within the column, p >= 0.05).",
    ]
    present = [line.method for line in grid.lines if line.reference]
    if said := [f"{name}: {REFERENCE_NOTES[name]}" for name in REFERENCES if name in present]:
        notes.append("References, never marked: " + "; ".join(said) + ".")
    if any(task.kind == "ground" for task in grid.tasks):
        notes.append("Parse failures: share of answers without a readable box; they count as misses.")
    if grid.unavailable:
        notes.append("Unavailable: " + "; ".join(grid.unavailable) + ".")
    return notes


def _line(
    group: Group,
    tasks: Sequence[Task],
    rows: dict[tuple[str, str, str, str], MainRow],
    marks: dict[str, tuple[str | None, frozenset[str]]],
    tested: dict[tuple[str, str], SignificanceRow],
) -> Line:
    cells = []
    for task in tasks:
        metric = PRIMARY_METRIC[task.kind]
        best, close = marks[task.name]
        cells.append(
            Cell(
                row=rows.get((group.label, task.name, metric, "personalised")),
                worst=rows.get((group.label, task.name, metric, "worst_client")),
                best=group.label == best,
                close=group.label in close,
                against=tested.get((group.label, task.name)),
            )
        )
    return Line(group.label, group.reference, len(group.runs), tuple(cells), summarise(group))
