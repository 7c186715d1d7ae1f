"""The grid of methods x tasks on primary metrics that `main.md`, `main.tex` and `compare` show."""

from collections.abc import Sequence
from dataclasses import dataclass

from pilot.report.numbers.comparable import AllowedDifferences
from pilot.report.numbers.cost import CostSummary, summarise
from pilot.report.numbers.incidents import incident_notes, quarantine_notes
from pilot.report.numbers.load import Task
from pilot.report.numbers.order import REFERENCE_NOTES, REFERENCES
from pilot.report.numbers.retraining import MIN_SEEDS
from pilot.report.numbers.significance import (
    DEFAULT_BASELINE,
    DEFAULT_TEST,
    SignificanceRow,
    Test,
    against_baseline,
    best_and_close,
)
from pilot.report.numbers.statistics import LEVEL
from pilot.report.numbers.summary import Group, MainRow, main_rows, primary_metric, unavailable_reasons

FEW_SEEDS = 5
TEST_NOTES: dict[Test, str] = {
    "training": "would the difference be there after training again: paired over seeds and images, Student's t",
    "these-models": "do these trained models differ: paired permutation of their scores over images",
}


@dataclass(frozen=True)
class Cell:
    """A method's primary metric on one task. A row is None if the runs have no such line.

    Attributes:
        row: personalised protocol, mean over the task's clients and seeds.
        worst: mean over seeds of the worst client.
        local: local protocol, mean over clients and seeds.
        best: whether it is the best of the federated methods.
        close: whether it is not significantly different from the best.
        against: the test against the baseline; None if nothing was tested.
    """

    row: MainRow | None
    worst: MainRow | None
    local: MainRow | None
    best: bool
    close: bool
    against: SignificanceRow | None

    @property
    def arrow(self) -> str:
        """`up` if significantly above the baseline, `down` if significantly below it, else empty."""
        if self.against is None or self.against.p_holm >= LEVEL:
            return ""
        return "up" if self.against.difference > 0 else "down"


@dataclass(frozen=True)
class Line:
    """One method: a cell per task, its cost, whether it is a reference, and the formats it was imported from."""

    method: str
    reference: bool
    imported: tuple[str, ...]
    num_seeds: int
    cells: tuple[Cell, ...]
    cost: CostSummary


@dataclass(frozen=True)
class Headline:
    """One scenario's grid. `baseline` is None if it is not among the runs; `test` is what its marks say."""

    scenario: str
    test: Test
    tasks: tuple[Task, ...]
    lines: tuple[Line, ...]
    baseline: str | None
    unavailable: tuple[str, ...]
    allowed: AllowedDifferences
    incidents: tuple[str, ...]
    quarantined: tuple[str, ...]


def build_headlines(
    groups: Sequence[Group], baseline: str, allowed: AllowedDifferences, test: Test = DEFAULT_TEST
) -> list[Headline]:
    """Build one grid per scenario among `groups`: methods in table order, references last.

    Args:
        groups: `group_runs(runs)`.
        baseline: the method that the others are tested against.
        allowed: differences between the runs that were allowed (`check_comparable`).
        test: the test that marks stand for.
    """
    tests = against_baseline(groups, baseline, [test])
    grids = []
    for scenario in sorted({group.scenario for group in groups}):
        members = [group for group in groups if group.scenario == scenario]
        tasks = tuple(dict.fromkeys(task for group in members for task in group.tasks))
        primary = {primary_metric(group, task) for group in members for task in group.tasks}
        rows = {(row.method, row.task, row.metric, row.protocol): row for row in main_rows(members, only=primary)}
        marks = {task.name: best_and_close(members, task, test) for task in tasks}
        tested = {(row.method, row.task): row for row in tests if row.scenario == scenario}
        lines = [_line(group, tasks, rows, marks, tested) for group in members]
        grids.append(
            Headline(
                scenario=scenario,
                test=test,
                tasks=tasks,
                lines=tuple(sorted(lines, key=lambda line: line.reference)),
                baseline=baseline if any(group.label == baseline for group in members) else None,
                unavailable=tuple(unavailable_reasons(members)),
                allowed=allowed,
                incidents=tuple(incident_notes(members)),
                quarantined=tuple(quarantine_notes(members)),
            )
        )
    return grids


def footnotes(grid: Headline) -> list[str]:
    """Return the notes below a grid: differences, incidents, metrics, protocols, marks, references and gaps."""
    metrics = "; ".join(f"{task.name}: {task.metric}" for task in grid.tasks)
    tested = f"↑ ↓: significantly above or below {grid.baseline} (the same test, Holm-corrected over the table)."
    return [
        *_difference_notes(grid.allowed),
        *grid.incidents,
        f"Metrics: {metrics}. CIDEr is on a scale of 0 to 10, the others 0 to 1.",
        "Protocol: personalised (each client's model on its task's test set, mean over the task's clients); "
        "mean ± standard deviation over seeds (ddof 1).",
        "In brackets: 95 % interval of the mean over seeds, clients and images (hierarchical bootstrap, widened by "
        "Student's t for few seeds and clients; of one seed, over its clients and images); none where all scores are "
        "equal.",
        "Worst: per seed the task's worst client, mean over seeds; where one model serves all, the mean. "
        "Local: each client's model on a held-out part of its own data, mean over clients and seeds.",
        "Bold (and * in a terminal): best method of the column, except references. †: not significantly different from "
        f"it ({TEST_NOTES[grid.test]}, Holm-corrected within the column, p >= 0.05).",
        tested
        if grid.baseline
        else f"No {DEFAULT_BASELINE} among the runs, so no tests against a baseline (set one with --baseline).",
        *_seed_notes(grid),
        *_reference_notes(grid),
        *_gap_notes(grid),
        *grid.quarantined,
    ]


def _seed_notes(grid: Headline) -> list[str]:
    """Say how many seeds there are to tell what another training would change, if they are few."""
    fewest = min((line.num_seeds for line in grid.lines if not line.reference), default=FEW_SEEDS)
    if grid.test != "training" or fewest >= FEW_SEEDS:
        return []
    if fewest < MIN_SEEDS:
        return [
            "With one seed nothing says what another training would change, so there are no marks against the baseline "
            "(--test these-models asks about the models at hand)."
        ]
    return [
        f"With {fewest} seeds only large differences can be told from what another "
        "training would change: no mark does not mean no difference (`pilot-bench power` says how many seeds one "
        "needs; --test these-models asks about the models at hand)."
    ]


def _difference_notes(allowed: AllowedDifferences) -> list[str]:
    """Describe the differences that were allowed and found, and name those that were allowed but not found."""
    lines = [" ".join(line.strip() for line in each.text.splitlines()) for each in allowed.found]
    notes = [f"Allowed difference (--allow-different): {line}." for line in lines]
    found = {each.what for each in allowed.found}
    if idle := [name for name in allowed.names if name not in found]:
        notes.append(f"Allowed to differ (--allow-different), but the same in all runs: {', '.join(idle)}.")
    return notes


def _reference_notes(grid: Headline) -> list[str]:
    notes = []
    present = [line.method for line in grid.lines if line.reference]
    if said := [f"{name}: {REFERENCE_NOTES[name]}" for name in REFERENCES if name in present]:
        notes.append("References, never bold or †: " + "; ".join(said) + ".")
    if imported := [f"{line.method} ({', '.join(line.imported)})" for line in grid.lines if line.imported]:
        notes.append(
            f"Imported, never bold or †: {', '.join(imported)}: one set of answers of another tool to the same test "
            "sets, scored here like all others; without local protocol and cost. What training that model again would "
            "change is not known, and no mark asks about it."
        )
    return notes


def _gap_notes(grid: Headline) -> list[str]:
    notes = ["MB: 10^6 bytes sent up and down, all clients and rounds. -: not known, or not applicable."]
    if any(cell.row is not None and cell.row.status == "missing" for line in grid.lines for cell in line.cells):
        notes.append("Missing: the method's runs have no answers to this task.")
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
        metric = primary_metric(group, task)
        best, close = marks[task.name]
        cells.append(
            Cell(
                row=rows.get((group.label, task.name, metric, "personalised")),
                worst=rows.get((group.label, task.name, metric, "worst_client")),
                local=rows.get((group.label, task.name, metric, "local")),
                best=group.label == best,
                close=group.label in close,
                against=tested.get((group.label, task.name)),
            )
        )
    return Line(group.label, group.reference, group.imported, len(group.runs), tuple(cells), summarise(group))
