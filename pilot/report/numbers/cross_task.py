"""Every client's model on every task (`matrix.csv`), and what follows from it (`fairness.csv`).

With a_it the headline metric of client i's model on task t's test set, scaled values are
s_it = (a_it - untuned_t) / (central_t - untuned_t): 0 is the backbone as shipped, 1 is training on pooled data. Both
are means over clients and seeds, and are taken as known. Then, for each seed:

- self: mean of s_it over clients, t the client's own task;
- self_post_fit: the same after one more round of local steps;
- others: mean of s_it over all clients and the tasks that are not the client's own;
- worst_client, worst_3_mean: smallest value, and mean of the three smallest, of s_it on the clients' own tasks;
- std: its standard deviation over clients (ddof 0);
- jain: Jain's index (sum s)^2 / (n sum s^2), 1 if all clients are equal, 1/n if one has everything (Jain, Chiu and Hawe
  1984); undefined if a value is negative or all are 0.

A value is the mean over seeds. Intervals are those of `pilot.report.numbers.intervals`, over seeds, clients and images,
for self, self_post_fit and others (`combined_interval`); the other quantities are not means of examples and have none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pilot.evaluation.metrics import metric_bounds
from pilot.io.layout import CROSS_TASK, POST_FIT
from pilot.report.numbers.intervals import bootstrap_clients, bootstrap_interval, combined_interval
from pilot.report.numbers.load import Task
from pilot.report.numbers.order import method_key
from pilot.report.numbers.statistics import Floats, Scores
from pilot.report.numbers.summary import Group, primary_metric, scores_of, values_by_seed_and_client

ZERO, ONE = "untuned", "central"
EVERYONE = "all"
QUANTITIES = ("self", "self_post_fit", "others", "worst_client", "worst_3_mean", "std", "jain")
_NUM_WORST = 3


@dataclass(frozen=True)
class MatrixRow:
    """One line of `matrix.csv`: a client's model on a task's test set.

    `client` is `all` and `client_task` empty if all clients have the same model.
    """

    scenario: str
    method: str
    client: str
    client_task: str
    task: str
    metric: str
    mean: float | None
    std: float | None
    num_seeds: int
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class FairnessRow:
    """One line of `fairness.csv`: a quantity over the clients of a method, on the scaled values.

    `status` is `ok`, or says why there is no value.
    """

    scenario: str
    method: str
    quantity: str
    mean: float | None
    std: float | None
    num_seeds: int
    ci_low: float | None
    ci_high: float | None
    status: str


@dataclass(frozen=True)
class _Row:
    """The values of some clients' models on one task, by seed and client, and their scores by example if known."""

    clients: tuple[int, ...]
    values_SC: Floats
    scores: Scores | None

    def of(self, place: int) -> "_Row":
        """Return the row of one client alone."""
        chosen = slice(place, place + 1)
        scores = None if self.scores is None else replace(self.scores, values_SCI=self.scores.values_SCI[:, chosen])
        return _Row(self.clients[chosen], self.values_SC[:, chosen], scores)


def matrix_rows(groups: Sequence[Group]) -> list[MatrixRow]:
    """Return the lines of `matrix.csv`, by scenario, method, client and task; a cell without a value has no line."""
    rows = []
    for group in _sorted(groups):
        own = {client: task.name for task in group.tasks for client in task.clients}
        elsewhere = group.at(CROSS_TASK)
        for task in group.tasks:
            metric, (inside, outside) = primary_metric(group, task), _rows(group, elsewhere, task)
            for row in (row for row in (inside, outside) if row is not None):
                for place, client in enumerate(row.clients):
                    if _one_model(group) and (row is outside or place):
                        continue
                    name = (EVERYONE, "") if _one_model(group) else (str(client), own[client])
                    fixed = (group.scenario, group.label, *name, task.name, metric)
                    rows.append((own[client], client, _matrix_row(fixed, row.of(place))))
    order = {task.name: place for group in groups for place, task in enumerate(group.tasks)}
    rows.sort(key=lambda each: (each[2].scenario, method_key(each[2].method), each[1], order[each[2].task]))
    return [row for *_, row in rows]


def fairness_rows(groups: Sequence[Group]) -> list[FairnessRow]:
    """Return the lines of `fairness.csv`, by scenario and method."""
    rows = []
    for scenario in dict.fromkeys(group.scenario for group in groups):
        beside = {group.method: group for group in groups if group.scenario == scenario}
        for group in _sorted(each for each in groups if each.scenario == scenario and each.method != ZERO):
            rows += _fairness(group, beside)
    return rows


def jain(values: Floats) -> float | None:
    """Compute Jain's index of values along the last axis; None if one is negative or all are 0."""
    if (values < 0).any() or not values.any():
        return None
    return float(values.sum() ** 2 / (len(values) * (values**2).sum()))


def _sorted(groups: Iterable[Group]) -> list[Group]:
    """Return the groups whose runs have models, in table order: not imported answers or blind ones."""
    own = [group for group in groups if group.method == ZERO or all(run.rounds for run in group.runs)]
    return sorted(own, key=lambda group: (group.scenario, method_key(group.label)))


def _one_model(group: Group) -> bool:
    return all(run.config.get("one_model", False) for run in group.runs)


def _rows(group: Group, elsewhere: Group | None, task: Task) -> tuple[_Row | None, _Row | None]:
    """Return the values on a task of the models of its own clients, and of the others.

    Args:
        elsewhere: the group with its evaluations on other tasks (`CROSS_TASK`), None if it has none.
    """
    inside, outside = _row(group, task, "personalised"), None
    others = tuple(client for each in group.tasks if each != task for client in each.clients)
    if inside is not None and _one_model(group) and others:
        same = inside.of(0)
        scores = same.scores
        if scores is not None:
            scores = replace(scores, values_SCI=np.repeat(scores.values_SCI, len(others), axis=1))
        outside = _Row(others, np.repeat(same.values_SC, len(others), axis=1), scores)
    if outside is None and elsewhere is not None:
        outside = _row(elsewhere, task, CROSS_TASK)
    return inside, outside


def _row(group: Group, task: Task, protocol: str) -> _Row | None:
    metric = primary_metric(group, task)
    values_SC = values_by_seed_and_client(group, task.name, metric, protocol)
    if values_SC is None:
        return None
    chosen = {entry.client for entry in group.runs[0].entries if (entry.task, entry.protocol) == (task.name, protocol)}
    return _Row(tuple(sorted(chosen)), values_SC, scores_of(group, task.name, metric, protocol))


def _matrix_row(fixed: tuple[str, str, str, str, str, str], row: _Row) -> MatrixRow:
    values_S, bounds = row.values_SC[:, 0], metric_bounds(fixed[-1])
    found = (
        bootstrap_clients(row.values_SC, bounds=bounds)
        if row.scores is None
        else bootstrap_interval(row.scores, bounds=bounds)
    )
    low, high = found or (None, None)
    return MatrixRow(*fixed, float(values_S.mean()), _std(values_S), len(values_S), low, high)


def _fairness(group: Group, beside: Mapping[str, Group]) -> list[FairnessRow]:
    own, fit, others = [], [], []
    at, elsewhere = group.at(POST_FIT), group.at(CROSS_TASK)
    for task in group.tasks:
        scale, reason = _scale(task, beside)
        if scale is None:
            return [_missing(group, name, reason) for name in QUANTITIES]
        inside, outside = (None if row is None else _scaled(row, *scale) for row in _rows(group, elsewhere, task))
        if inside is None:
            return [_missing(group, name, f"{task.name}: no value") for name in QUANTITIES]
        own.append(inside)
        after = _row(at, task, "personalised") if at else None
        fit += [] if after is None else [_scaled(after, *scale)]
        others += [] if outside is None else [outside]
    values_SC = np.concatenate([row.values_SC for row in own], axis=1)
    worst_SC = np.sort(values_SC, axis=1)[:, :_NUM_WORST]
    fair = [jain(values) for values in values_SC]
    not_compared = "one task only" if len(group.tasks) == 1 else "not evaluated on other tasks (cross_task)"
    return [
        _mean_row(group, "self", own),
        _mean_row(group, "self_post_fit", fit)
        if fit
        else _missing(group, "self_post_fit", "not evaluated after local steps (post_fit)"),
        _mean_row(group, "others", others) if others else _missing(group, "others", not_compared),
        _plain(group, "worst_client", worst_SC[:, 0]),
        _plain(group, "worst_3_mean", worst_SC.mean(axis=1)),
        _plain(group, "std", values_SC.std(axis=1)),
        _missing(group, "jain", "a scaled value is negative, or all are 0")
        if None in fair
        else _plain(group, "jain", np.array(fair)),
    ]


def _scale(task: Task, beside: Mapping[str, Group]) -> tuple[tuple[float, float] | None, str]:
    """Return the values of a task that become 0 and 1, or the reason why there are none."""
    ends = []
    for name in (ZERO, ONE):
        row = _row(beside[name], task, "personalised") if name in beside else None
        if row is None:
            return None, f"{task.name}: no value of {name} to scale by"
        ends.append(float(row.values_SC.mean()))
    if ends[1] <= ends[0]:
        return None, f"{task.name}: {ONE} is not better than {ZERO}"
    return (ends[0], ends[1]), ""


def _scaled(row: _Row, zero: float, one: float) -> _Row:
    def scale(values: Floats) -> Floats:
        return (values - zero) / (one - zero)

    scores = None if row.scores is None else replace(row.scores, values_SCI=scale(row.scores.values_SCI))
    return _Row(row.clients, scale(row.values_SC), scores)


def _mean_row(group: Group, quantity: str, rows: Sequence[_Row]) -> FairnessRow:
    """Average over the cells of all rows, with an interval."""
    total = sum(len(row.clients) for row in rows)
    values_S = np.concatenate([row.values_SC for row in rows], axis=1).mean(axis=1)
    parts = [(len(row.clients) / total, row.values_SC if row.scores is None else row.scores) for row in rows]
    low, high = combined_interval(parts, values_S) or (None, None)
    return replace(_plain(group, quantity, values_S), ci_low=low, ci_high=high)


def _plain(group: Group, quantity: str, values_S: Floats) -> FairnessRow:
    mean, std = float(values_S.mean()), _std(values_S)
    return FairnessRow(group.scenario, group.label, quantity, mean, std, len(values_S), None, None, "ok")


def _missing(group: Group, quantity: str, reason: str) -> FairnessRow:
    return FairnessRow(group.scenario, group.label, quantity, None, None, len(group.runs), None, None, reason)


def _std(values_S: Floats) -> float | None:
    return float(values_S.std(ddof=1)) if len(values_S) > 1 else None
