"""What methods do under imaging conditions of clients (`conditions.csv`): their own, the others', and none.

Every model answers its task's whole test set several times: as the images are (`clean`), under its client's own
conditions (`own`), and under those of the other clients (`others`, their mean). All are the same images and questions,
so differences come from the conditions alone. Clients' held-out parts under their own conditions are the protocol
`local` of `main.csv`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pilot.errors import UserError
from pilot.evaluation.metrics import metric_bounds
from pilot.io.layout import condition_evaluation
from pilot.report.numbers.intervals import bootstrap_clients, bootstrap_interval
from pilot.report.numbers.load import Task
from pilot.report.numbers.order import method_key
from pilot.report.numbers.retraining import Retraining
from pilot.report.numbers.significance import DEFAULT_BASELINE, find_baseline, retrained
from pilot.report.numbers.statistics import Floats, Scores, holm
from pilot.report.numbers.summary import Group, primary_metric, scores_of, values_by_seed_and_client

SEEN = ("own", "others", "clean")
_PROTOCOL = "personalised"


@dataclass(frozen=True)
class ConditionRow:
    """One line of `conditions.csv`: a task's headline metric on its test set under some clients' conditions.

    `difference` is minus the value on clean images, with its interval. `over_fedavg` is minus the value of `fedavg`
    under the same conditions; `p_holm` says whether that difference would be there after training again
    (`retraining`), with Holm's correction over all own and others' conditions, tasks and methods of the scenario.
    Differences on clean images are in `significance.csv`.
    """

    scenario: str
    method: str
    seen: str
    task: str
    metric: str
    mean: float | None
    std: float | None
    num_seeds: int
    ci_low: float | None
    ci_high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    over_fedavg: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class Values:
    """A metric by seed and client, and its scores by example if it is their mean."""

    values_SC: Floats
    scores: Scores | None


Known = Mapping[tuple[str, str], dict[str, Values]]
"""Values by method and task, each read once."""


def condition_rows(groups: Sequence[Group]) -> list[ConditionRow]:
    """Return the lines of `conditions.csv`, by scenario, what is seen, task and method."""
    rows = []
    for scenario in sorted({group.scenario for group in groups}):
        members = [group for group in groups if group.scenario == scenario]
        known = {key: values for group in members for key, values in _by_seen(group).items()}
        rows += _tested(_of_scenario(members, known), members, known)
    return rows


def _of_scenario(members: Sequence[Group], known: Known) -> list[tuple[Group, Task, ConditionRow]]:
    keyed = []
    for group in members:
        for place, task in enumerate(group.tasks):
            found = known[group.label, task.name]
            for seen in SEEN if found else ():
                order = (SEEN.index(seen), place, method_key(group.label))
                keyed.append((order, (group, task, _row(group, task, seen, found))))
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def _tested(
    rows: Sequence[tuple[Group, Task, ConditionRow]], members: Sequence[Group], known: Known
) -> list[ConditionRow]:
    """Add the differences from `fedavg` under clients' conditions, and their tests."""
    base = find_baseline(members, DEFAULT_BASELINE)
    results: dict[int, Retraining] = {}
    for number, (group, task, row) in enumerate(rows):
        if base is None or group is base or row.seen == "clean":
            continue
        result = retrained(group, base, task, partial(_scores_as_seen, known, row.seen))
        if result is not None:
            results[number] = result
    adjusted = dict(zip(results, holm([result.p_value for result in results.values()]), strict=True))
    return [
        replace(row, over_fedavg=results[number].difference, p_holm=adjusted[number]) if number in results else row
        for number, (*_, row) in enumerate(rows)
    ]


def _scores_as_seen(known: Known, seen: str, group: Group, task: Task) -> Scores | None:
    found = known[group.label, task.name]
    return found[seen].scores if found else None


def _by_seen(group: Group) -> dict[tuple[str, str], dict[str, Values]]:
    """Return a group's part of `Known`; no values at all for a group that was not evaluated under conditions."""
    conditions = group.runs[0].config.get("scenario_config", {}).get("conditions") or ()
    at = [group.at(condition_evaluation(place)) for place in range(len(conditions))]
    under = [each for each in at if each is not None]
    complete = bool(under) and len(under) == len(at)
    return {(group.label, task.name): _of_task(group, under, task) if complete else {} for task in group.tasks}


def _of_task(group: Group, at: Sequence[Group], task: Task) -> dict[str, Values]:
    """Return a task's headline metric under own conditions, others' and none; `at` is the group under each condition.

    Raises:
        UserError: the evaluations are of different questions.
    """
    known = [found for each in at if (found := _values(each, task)) is not None]
    clean = _values(group, task)
    if clean is None or len(known) < len(at):
        return {}
    if len({each.scores.ids for each in (*known, clean) if each.scores is not None}) > 1:
        raise UserError(
            f"{group.runs[0].path}/eval: the answers under conditions are not to the questions of {task.name}'s other "
            f"answers. Evaluate again: pilot-bench evaluate {group.runs[0].path}"
        )
    own_C = np.arange(len(task.clients)) % len(at)

    def own(stacked: Floats) -> Floats:
        return np.stack([stacked[place, :, client] for client, place in enumerate(own_C)], axis=1)

    def others(stacked: Floats) -> Floats:
        return (stacked.sum(axis=0) - own(stacked)) / (len(stacked) - 1)

    return {"own": _combined(known, own), "others": _combined(known, others), "clean": clean}


def _values(group: Group, task: Task) -> Values | None:
    metric = primary_metric(group, task)
    values_SC = values_by_seed_and_client(group, task.name, metric, _PROTOCOL)
    return None if values_SC is None else Values(values_SC, scores_of(group, task.name, metric, _PROTOCOL))


def _combined(under: Sequence[Values], combine: Callable[[Floats], Floats]) -> Values:
    """Combine values under each condition, stacked along a new first axis."""
    values_SC = combine(np.stack([each.values_SC for each in under]))
    scores = [each.scores for each in under if each.scores is not None]
    if len(scores) < len(under):
        return Values(values_SC, None)
    return Values(values_SC, replace(scores[0], values_SCI=combine(np.stack([each.values_SCI for each in scores]))))


def _row(group: Group, task: Task, seen: str, found: dict[str, Values]) -> ConditionRow:
    metric, own, clean = primary_metric(group, task), found[seen], found["clean"]
    low, high = _interval(own, metric_bounds(metric)) or (None, None)
    values_S = own.values_SC.mean(axis=1)
    std = float(values_S.std(ddof=1)) if len(values_S) > 1 else None
    start = (group.scenario, group.label, seen, task.name, metric)
    if seen == "clean":
        return ConditionRow(*start, float(values_S.mean()), std, len(values_S), low, high, None, None, None)
    change = _minus(own, clean)
    bounds = _interval(change, (-np.inf, np.inf)) or (None, None)
    mean, difference = float(values_S.mean()), float(change.values_SC.mean())
    return ConditionRow(*start, mean, std, len(values_S), low, high, difference, *bounds)


def _minus(own: Values, clean: Values) -> Values:
    if own.scores is None or clean.scores is None:
        return Values(own.values_SC - clean.values_SC, None)
    scores = replace(own.scores, values_SCI=own.scores.values_SCI - clean.scores.values_SCI)
    return Values(own.values_SC - clean.values_SC, scores)


def _interval(found: Values, bounds: tuple[float, float]) -> tuple[float, float] | None:
    if found.scores is None:
        return bootstrap_clients(found.values_SC, bounds=bounds)
    return bootstrap_interval(found.scores, bounds=bounds)
