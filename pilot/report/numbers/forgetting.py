"""What tuned models have kept of what the backbone could do (`forgetting.csv`)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pilot.evaluation.metrics import PRIMARY
from pilot.io.layout import FORGETTING, FORGETTING_LM_EVAL
from pilot.report.numbers.load import Run, Task
from pilot.report.numbers.order import method_key
from pilot.report.numbers.summary import Group, MainRow, main_rows

BEFORE = "untuned"


@dataclass(frozen=True)
class ForgettingRow:
    """One line of `forgetting.csv`: a skill of the backbone after tuning, mean over clients and seeds.

    `untuned` is the value of the backbone as shipped, `difference` the mean minus that; both are empty without a run
    of `untuned`.
    """

    scenario: str
    method: str
    task: str
    metric: str
    mean: float | None
    std: float | None
    num_seeds: int
    ci_low: float | None
    ci_high: float | None
    untuned: float | None
    difference: float | None


def forgetting_rows(groups: Sequence[Group]) -> list[ForgettingRow]:
    """Return the lines of `forgetting.csv`, by scenario, task, metric and method."""
    found = [row for group in groups if not group.imported for row in _rows(group)]
    before = {(row.scenario, row.task, row.metric): row.mean for row in found if row.method == BEFORE}
    found.sort(key=lambda row: (row.scenario, row.task, row.metric, method_key(row.method)))
    return [_row(row, before.get((row.scenario, row.task, row.metric))) for row in found]


def _rows(group: Group) -> list[MainRow]:
    rows = []
    for evaluation in (FORGETTING, FORGETTING_LM_EVAL):
        if (at := group.at(evaluation)) is not None:
            own = [replace(run, tasks=_tasks(run)) for run in at.runs]
            shown = {PRIMARY[task.kind] for task in own[0].tasks if task.kind in PRIMARY} or None
            rows += main_rows([replace(group, runs=tuple(own))], only=shown)
    return [row for row in rows if row.protocol == "personalised"]


def _tasks(run: Run) -> tuple[Task, ...]:
    """Return the tasks of an evaluation that are not tasks of the scenario, with the clients whose models it asked."""
    kinds = {entry.task: entry.kind for entry in run.entries}
    return tuple(
        Task(name, kind, tuple(sorted({entry.client for entry in run.entries if entry.task == name})))
        for name, kind in sorted(kinds.items())
    )


def _row(row: MainRow, before: float | None) -> ForgettingRow:
    difference = None if row.mean is None or before is None else row.mean - before
    start = (row.scenario, row.method, row.task, row.metric, row.mean, row.std, row.num_seeds, row.ci_low, row.ci_high)
    return ForgettingRow(*start, before, difference)
