"""Do marks survive? The marks of one set of seeds, looked up in another set that shares none of them.

The first n seeds of every method make the marks, as a table of n seeds would: by each test (`significance`), with
Holm's correction, once against the baseline and once for all pairs of methods. The next n seeds, trained apart, say
whether the mark was worth quoting: the difference has the same sign, and lies inside the first set's 95 % interval.

The interval of `training` is d +- c sqrt(V), c weighted as its critical values; that of `these-models` counts the
images alone, as the test does. Both are for the true difference: another set's difference, which varies itself, falls
outside more often than in 5 % of cases. The share with the same sign says how often the better method is the better
one again.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtrit

from pilot.errors import UserError
from pilot.report.numbers.load import Task
from pilot.report.numbers.retraining import MIN_SEEDS
from pilot.report.numbers.significance import DEFAULT_BASELINE, TESTS, Test, compare_groups, find_baseline, retrained
from pilot.report.numbers.statistics import LEVEL, holm
from pilot.report.numbers.summary import Group, image_of_example, primary_metric, scores_of

Family = Literal["baseline", "pairs"]
FAMILIES: tuple[Family, ...] = ("baseline", "pairs")


@dataclass(frozen=True)
class ReplicationRow:
    """One comparison of two methods in the first set of seeds, and what the second set says about it.

    Attributes:
        compared: `baseline` or `pairs`: the comparisons that Holm's correction is over.
        difference: method minus other, in the first set.
        ci_low, ci_high: the first set's 95 % interval.
        marked: whether `p_holm` is below 0.05.
        again: the difference in the second set.
        same_sign: whether both differences have the same sign.
        inside: whether `again` is inside the interval.
    """

    scenario: str
    test: Test
    compared: Family
    task: str
    metric: str
    method: str
    other: str
    difference: float
    ci_low: float
    ci_high: float
    p_holm: float
    marked: bool
    again: float
    same_sign: bool
    inside: bool

    @property
    def confirmed(self) -> bool:
        """Whether the second set confirms the mark."""
        return self.same_sign and self.inside


class _Compared(NamedTuple):
    """A difference of two methods in one set of seeds."""

    difference: float
    p_value: float
    interval: tuple[float, float]


def replication_rows(groups: Sequence[Group], num_seeds: int, baseline: str = DEFAULT_BASELINE) -> list[ReplicationRow]:
    """Compare the first `num_seeds` seeds of every trained method with the next `num_seeds`.

    Args:
        groups: `group_runs(runs)`; references of one run have no rows, but their tests count in the correction.
        num_seeds: of either set.
        baseline: the method that the others are compared with, if it is among the groups.

    Raises:
        UserError: too few seeds in a set, or a method has too few.
    """
    if num_seeds < MIN_SEEDS:
        raise UserError(f"--seeds {num_seeds}: expected at least {MIN_SEEDS}, of which variation can be estimated.")
    rows = []
    for scenario in sorted({group.scenario for group in groups}):
        members = [group for group in groups if group.scenario == scenario]
        sets = _split(members, num_seeds)
        for test, family in itertools.product(TESTS, FAMILIES):
            rows += _of_family(members, sets, test, family, baseline)
    return rows


def _split(members: Sequence[Group], num_seeds: int) -> tuple[dict[str, Group], dict[str, Group]]:
    """Return the groups of the first seeds and of the next, by label; all methods have the same seeds in each."""
    trained = [{run.seed for run in group.runs} for group in members if not group.fixed]
    seeds = sorted(set.intersection(*trained)) if trained else []
    if len(seeds) < 2 * num_seeds:
        raise UserError(
            f"--seeds {num_seeds}: expected {2 * num_seeds} seeds that all methods have, found {len(seeds)}. Train "
            f"more: snakemake --cores all {members[0].scenario} --config seeds={2 * num_seeds}"
        )
    chosen = set(seeds[:num_seeds]), set(seeds[num_seeds : 2 * num_seeds])
    first, second = (
        {
            group.label: group if group.fixed else replace(group, runs=tuple(r for r in group.runs if r.seed in each))
            for group in members
        }
        for each in chosen
    )
    return first, second


def _of_family(
    members: Sequence[Group],
    sets: tuple[Mapping[str, Group], Mapping[str, Group]],
    test: Test,
    family: Family,
    baseline: str,
) -> list[ReplicationRow]:
    first, second = sets
    found = []
    for task, method, other in _pairs(members, family, baseline):
        result = _compare(first[method], first[other], task, test)
        again = _compare(second[method], second[other], task, test)
        if result is not None and again is not None:
            found.append((task, method, other, result, again.difference))
    adjusted = holm([result.p_value for *_, result, _ in found])
    return [
        ReplicationRow(
            *(members[0].scenario, test, family, task.name, primary_metric(first[method], task), method, other),
            *(result.difference, *result.interval, p_holm, p_holm < LEVEL, again),
            *(result.difference * again > 0, result.interval[0] <= again <= result.interval[1]),
        )
        for (task, method, other, result, again), p_holm in zip(found, adjusted, strict=True)
        if not first[method].fixed and not first[other].fixed
    ]


def _pairs(members: Sequence[Group], family: Family, baseline: str) -> Iterator[tuple[Task, str, str]]:
    base = find_baseline(members, baseline) if family == "baseline" else None
    for task in members[0].tasks:
        if family == "pairs":
            trained = [group.label for group in members if not group.fixed]
            yield from ((task, one, other) for one, other in itertools.combinations(trained, 2))
        elif base is not None:
            yield from ((task, group.label, base.label) for group in members if group is not base)


def _compare(group: Group, base: Group, task: Task, test: Test) -> _Compared | None:
    """Test a difference; its interval is by the variation that the test knows of."""
    if test == "training":
        found = retrained(group, base, task)
        return None if found is None else _Compared(found.difference, found.p_value, found.interval)
    result, ends = compare_groups(group, base, task, test), _interval_over_images(group, base, task)
    return _Compared(result.difference, result.p_value, ends) if result is not None and ends is not None else None


def _interval_over_images(group: Group, base: Group, task: Task) -> tuple[float, float] | None:
    metric = primary_metric(group, task)
    own, other = (scores_of(each, task.name, metric, "personalised") for each in (group, base))
    if own is None or other is None:
        return None
    scores, others = own.by_id(), other.by_id()
    images = image_of_example(base.runs[0].scenario_dir, task.name)
    ids = sorted(scores.keys() & others.keys())
    names = np.unique([images.get(id, id) for id in ids], return_inverse=True)[1]
    changes = np.array([scores[id] - others[id] for id in ids])
    num = int(names.max()) + 1
    values = np.bincount(names, changes, num) * num / len(ids)
    half = float(stdtrit(num - 1, 1 - LEVEL / 2)) * float(values.std(ddof=1)) / math.sqrt(num)
    return float(values.mean()) - half, float(values.mean()) + half
