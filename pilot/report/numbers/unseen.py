"""What methods do for clients and questions that took no part in training (`unseen.csv`)."""

from collections.abc import Sequence
from dataclasses import dataclass

from pilot.io.layout import NEWCOMERS, NEWCOMERS_FIT, QUESTIONS
from pilot.report.numbers.order import method_key
from pilot.report.numbers.summary import Group, MainRow, main_rows, primary_metric

KINDS = {NEWCOMERS: "clients", NEWCOMERS_FIT: "clients after own steps", QUESTIONS: "questions"}
"""Evaluation -> what is unseen."""


@dataclass(frozen=True)
class UnseenRow:
    """One line of `unseen.csv`: a task's headline metric on unseen clients or questions.

    `seen` is the same metric and protocol of the clients that trained, or of the questions that were trained on;
    `difference` is unseen minus seen.
    """

    scenario: str
    method: str
    unseen: str
    task: str
    metric: str
    protocol: str
    mean: float | None
    std: float | None
    num_seeds: int
    ci_low: float | None
    ci_high: float | None
    seen: float | None
    difference: float | None


def unseen_rows(groups: Sequence[Group]) -> list[UnseenRow]:
    """Return the lines of `unseen.csv`, by scenario, what is unseen, task, protocol and method."""
    keyed = []
    for group in groups:
        if group.imported:
            continue
        seen = {(row.task, row.metric, row.protocol): row.mean for row in _primary(group, group)}
        for kind, evaluation in enumerate(KINDS):
            if (at := group.at(evaluation)) is None:
                continue
            places = {task.name: place for place, task in enumerate(group.tasks)}
            for row in _primary(group, at):
                if row.status != "missing" and row.protocol != "worst_client":
                    order = (group.scenario, kind, places[row.task], row.protocol == "local", method_key(group.label))
                    keyed.append((order, _row(row, KINDS[evaluation], seen)))
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def _primary(group: Group, at: Group) -> list[MainRow]:
    """Return the rows of a group's headline metrics in an evaluation."""
    metrics = {(task.name, primary_metric(group, task)) for task in group.tasks}
    rows = main_rows([at], only={metric for _, metric in metrics})
    return [row for row in rows if (row.task, row.metric) in metrics]


def _row(row: MainRow, unseen: str, seen: dict[tuple[str, str, str], float | None]) -> UnseenRow:
    usual = seen.get((row.task, row.metric, row.protocol))
    difference = None if row.mean is None or usual is None else row.mean - usual
    start = (row.scenario, row.method, unseen, row.task, row.metric, row.protocol)
    return UnseenRow(*start, row.mean, row.std, row.num_seeds, row.ci_low, row.ci_high, usual, difference)
