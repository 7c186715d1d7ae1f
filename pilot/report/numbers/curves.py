"""Learning curves of methods over rounds, bytes and steps (`curves.csv`), and when they reach a target (`targets.csv`).

A point of a curve is computed from the models of a round as the headline table is from those of the last one; the last
point is that table's value. Methods that are not trained have one point, at round 0.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pilot.io.layout import round_evaluation
from pilot.report.numbers.load import Task
from pilot.report.numbers.order import PROTOCOLS, method_key
from pilot.report.numbers.summary import Group, MainRow, main_rows, primary_metric, values_by_seed_and_client

START, SHARE_OF = "untuned", "local"
REACHED, NOT_REACHED, NO_TARGET = "reached", "not reached", "no target"


@dataclass(frozen=True)
class CurveRow:
    """One line of `curves.csv`: a task's headline metric after a round.

    `bytes` (up and down, all clients) and `steps` (all clients) are sums from the start of training, means over seeds;
    `time` is that of the virtual clock, if the profile has one, in optimiser steps of a client of speed 1.
    """

    scenario: str
    method: str
    task: str
    metric: str
    protocol: str
    round: int
    bytes: int
    steps: int
    time: float | None
    mean: float | None
    std: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class TargetRow:
    """One line of `targets.csv`: the first evaluated round after which the mean over seeds is at least the target.

    `status` is `reached`, `not reached`, `no target`, or says why the target is unknown.

    `seeds_reached` counts the seeds whose own value reaches it at any evaluated round, of `num_seeds`. `area` is the
    area under the curve over rounds (trapezoids), divided by the range of rounds: a mean of the metric over training.
    The curve starts with `untuned` at round 0 if there is such a run, else at the first evaluated round.
    """

    scenario: str
    method: str
    task: str
    metric: str
    target: float | None
    status: str
    round: int | None
    bytes: int | None
    steps: int | None
    time: float | None
    seeds_reached: int | None
    num_seeds: int
    area: float | None


def curve_rows(groups: Sequence[Group]) -> list[CurveRow]:
    """Return the lines of `curves.csv`, by scenario, task, protocol, method and round; imported runs have none."""
    keyed = []
    for group in groups:
        for number, at in evaluated_groups(group).items():
            spent = spent_until(group, number)
            places = {(task.name, primary_metric(at, task)): place for place, task in enumerate(group.tasks)}
            for row in main_rows([at], only={metric for _, metric in places}):
                if (row.task, row.metric) in places:
                    place, protocol = places[row.task, row.metric], PROTOCOLS.index(row.protocol)
                    order = (group.scenario, place, protocol, method_key(group.label), number)
                    keyed.append((order, _curve_row(row, number, *spent)))
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def target_rows(groups: Sequence[Group], curves: Sequence[CurveRow]) -> list[TargetRow]:
    """Return the lines of `targets.csv`, by scenario, task and method, for methods that were trained.

    A target that the scenario gives as a share is that share of the value of `local` after the last round.
    """
    lines: dict[tuple[str, str, str], list[CurveRow]] = defaultdict(list)
    for row in curves:
        if row.protocol == "personalised":
            lines[row.scenario, row.task, row.method].append(row)
    ends = {key: rows[-1].mean for key, rows in lines.items()}
    rows = []
    for group in sorted(groups, key=lambda group: (group.scenario, method_key(group.label))):
        for position, task in enumerate(group.tasks):
            own = lines[group.scenario, task.name, group.label]
            if own and own[-1].round > 0:
                target = _target(group, task, ends.get((group.scenario, task.name, SHARE_OF)))
                start = ends.get((group.scenario, task.name, START))
                rows.append((position, _target_row(group, task, own, target, start)))
    return [row for _, row in sorted(rows, key=lambda pair: (pair[1].scenario, pair[0]))]


def evaluated_groups(group: Group) -> dict[int, Group]:
    """Return the group with its runs' evaluations after each round that all of them have, by round, ascending.

    Runs that are not trained have one, at round 0; imported ones none.
    """
    if group.imported:
        return {}
    if not all(run.rounds for run in group.runs):
        return {0: group}
    last = {int(run.config["budget"]["rounds"]) for run in group.runs}
    found: dict[int, Group] = {}
    for number in range(1, max(last)):
        if (at := group.at(round_evaluation(number))) is not None:
            found[number] = at
    return found | ({max(last): group} if len(last) == 1 else {})


def spent_until(group: Group, number: int) -> tuple[int, int, float | None]:
    """Return the bytes sent (up and down) and the steps of all clients up to a round, and the time when it ended.

    Bytes and steps are rounded means over the seeds. The time is None without a virtual clock; all seeds have the same.
    """
    sizes = [
        sum(sum(each["groups"].values()) for each in run.ledger.get("messages", ()) if each["round"] <= number)
        for run in group.runs
    ]
    steps = [
        sum(client["steps"] for row in run.rounds if row["round"] <= number for client in row["clients"])
        for run in group.runs
    ]
    ends = [row.get("end") for run in group.runs for row in run.rounds if row["round"] <= number]
    time = max((end for end in ends if end is not None), default=None)
    return round(sum(sizes) / len(sizes)), round(sum(steps) / len(steps)), time


def _curve_row(row: MainRow, number: int, size: int, steps: int, time: float | None) -> CurveRow:
    start = (row.scenario, row.method, row.task, row.metric, row.protocol)
    return CurveRow(*start, number, size, steps, time, row.mean, row.std, row.ci_low, row.ci_high)


def _target(group: Group, task: Task, end_of_local: float | None) -> tuple[float | None, str]:
    """Return a task's target and, if it has none, the reason."""
    named = group.runs[0].config.get("scenario_config", {}).get("targets")
    if named is None:
        return None, NO_TARGET
    if isinstance(named, Mapping):
        return (float(named[task.name]), "") if task.name in named else (None, NO_TARGET)
    return (None, f"no value of {SHARE_OF}") if end_of_local is None else (named * end_of_local, "")


def _target_row(
    group: Group, task: Task, curve: Sequence[CurveRow], target: tuple[float | None, str], start: float | None
) -> TargetRow:
    value, status = target
    means = [(row.round, row.mean) for row in curve if row.mean is not None]
    area = area_under(means if start is None else [(0, start), *means]) if len(means) == len(curve) else None
    fixed = (group.scenario, group.label, task.name, curve[-1].metric, value)
    if value is None:
        return TargetRow(*fixed, status, None, None, None, None, None, len(group.runs), area)
    first = next((row for row in curve if row.mean is not None and row.mean >= value), None)
    ever = _ever_reached(group, task, value)
    if first is None:
        return TargetRow(*fixed, NOT_REACHED, None, None, None, None, ever, len(group.runs), area)
    spent = (first.round, first.bytes, first.steps, first.time)
    return TargetRow(*fixed, REACHED, *spent, ever, len(group.runs), area)


def _ever_reached(group: Group, task: Task, target: float) -> int:
    """Count the seeds whose mean over clients is at least the target after some evaluated round."""
    reached = np.zeros(len(group.runs), dtype=bool)
    for at in evaluated_groups(group).values():
        values_SC = values_by_seed_and_client(at, task.name, primary_metric(at, task), "personalised")
        if values_SC is not None:
            reached |= values_SC.mean(axis=1) >= target
    return int(reached.sum())


def area_under(points: Sequence[tuple[int, float]]) -> float | None:
    """Return the area under straight lines between points, divided by their range; None for a single point.

    Args:
        points: (round, value), ascending rounds.
    """
    if len(points) < 2:
        return None
    rounds, values = zip(*points, strict=True)
    return float(np.trapezoid(values, rounds)) / (rounds[-1] - rounds[0])
