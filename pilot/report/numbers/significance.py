"""Significance tests: methods against a baseline, and against the best method; about training again, or these models.

- `training`: would the difference be there after training both methods again (`retraining`)? The marks of tables and
  reports say so. It needs two seeds of each trained method.
- `these-models`: do the models that were trained differ on images like these (`statistics.paired_permutation`)? Models
  of two equal methods often do, since no two trainings end alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pilot.errors import UserError
from pilot.report.numbers.load import Task
from pilot.report.numbers.retraining import MIN_SEEDS, Retraining, compare_trainings
from pilot.report.numbers.statistics import LEVEL, Floats, Scores, holm, paired_permutation
from pilot.report.numbers.summary import Group, image_of_example, primary_metric, scores_of, values_by_seed_and_client

DEFAULT_BASELINE = "fedavg"
Test = Literal["training", "these-models"]
TESTS: tuple[Test, ...] = get_args(Test)
DEFAULT_TEST: Test = "training"


@dataclass(frozen=True)
class SignificanceRow:
    """One line of `significance.csv`: a method against the baseline on a task's primary metric, by one test.

    `standard_error` is empty for `these-models`, a test of permutations.
    """

    scenario: str
    task: str
    metric: str
    protocol: str
    method: str
    baseline: str
    test: Test
    difference: float
    standard_error: float | None
    p_value: float
    p_holm: float
    num_seeds: int
    num_images: int


@dataclass(frozen=True)
class Tested:
    """The difference of two methods on a task, and its test."""

    difference: float
    standard_error: float | None
    p_value: float
    num_seeds: int
    num_images: int


def against_baseline(groups: Sequence[Group], baseline: str, tests: Sequence[Test] = TESTS) -> list[SignificanceRow]:
    """Test every method against `baseline` on each task's primary metric, personalised protocol.

    Holm's correction is over all rows of one scenario and test (methods x tasks). Methods without per-example scores
    have no row, and with `training` neither have trained methods of one seed. A scenario without the default baseline
    among its runs is not tested and has no rows.

    Raises:
        UserError: a baseline other than the default is not among the runs.
    """
    rows = []
    for scenario in sorted({group.scenario for group in groups}):
        members = [group for group in groups if group.scenario == scenario]
        base = find_baseline(members, baseline)
        if base is not None:
            rows += [row for test in tests for row in _of_scenario(members, base, test)]
    return rows


def _of_scenario(members: Sequence[Group], base: Group, test: Test) -> list[SignificanceRow]:
    found = [
        (group.label, task, result)
        for task in base.tasks
        for group in members
        if group is not base and (result := compare_groups(group, base, task, test)) is not None
    ]
    adjusted = holm([result.p_value for *_, result in found])
    return [
        SignificanceRow(
            *(base.scenario, task.name, primary_metric(base, task), "personalised", label, base.label, test),
            *(result.difference, result.standard_error, result.p_value, p_holm, result.num_seeds, result.num_images),
        )
        for (label, task, result), p_holm in zip(found, adjusted, strict=True)
    ]


def best_and_close(groups: Sequence[Group], task: Task, test: Test = DEFAULT_TEST) -> tuple[str | None, frozenset[str]]:
    """Find the best method on a task's primary metric, and the methods not significantly different from it.

    References (`order.is_reference`) are left out. "Not significantly different": the test against the best,
    Holm-corrected over the task's methods, has p >= 0.05, or `training` has too few seeds to tell.

    Returns:
        Label of the best method, None if no method has a value; labels of the others.
    """
    means = {}
    for group in groups:
        values = values_by_seed_and_client(group, task.name, primary_metric(group, task), "personalised")
        if not group.reference and values is not None:
            means[group.label] = float(values.mean())
    if not means:
        return None, frozenset()
    best = max(means, key=lambda label: means[label])
    by_label = {group.label: group for group in groups}
    results = {label: compare_groups(by_label[label], by_label[best], task, test) for label in means if label != best}
    tested = {label: result for label, result in results.items() if result is not None}
    adjusted = holm([result.p_value for result in tested.values()])
    close = {label for label, p in zip(tested, adjusted, strict=True) if p >= LEVEL}
    if test == "training":
        close |= {label for label in results if label not in tested and _scores(by_label[label], task) is not None}
    return best, frozenset(close)


def compare_groups(group: Group, base: Group, task: Task, test: Test = DEFAULT_TEST) -> Tested | None:
    """Test two methods on a task's primary metric; None without common examples, or seeds to compare."""
    if test == "training":
        found = retrained(group, base, task)
        if found is None:
            return None
        return Tested(found.difference, found.standard_error, found.p_value, found.num_seeds, found.num_images)
    own, other = _scores(group, task), _scores(base, task)
    if own is None or other is None:
        return None
    result = paired_permutation(own.by_id(), other.by_id(), image_of_example(base.runs[0].scenario_dir, task.name))
    return result and Tested(result[0], None, result[1], min(len(group.runs), len(base.runs)), result[2])


def retrained(
    group: Group, base: Group, task: Task, scores: Callable[[Group, Task], Scores | None] | None = None
) -> Retraining | None:
    """Compare two methods seed by seed; None with fewer than two common seeds, no common example or no variation.

    A reference of one run has the same answers in every seed. `scores` returns what is compared: by default the
    primary metric on the test set, personalised protocol.
    """
    scores_by_group = scores or _scores
    seeds = [{run.seed for run in each.runs} for each in (group, base) if not each.fixed]
    common = sorted(set.intersection(*seeds)) if seeds else []
    if len(common) < MIN_SEEDS:
        return None
    own, other = (scores_by_group(each, task) for each in (group, base))
    if own is None or other is None:
        return None
    ids = sorted(set(own.ids) & set(other.ids))
    if not ids:
        return None
    images = image_of_example(base.runs[0].scenario_dir, task.name)
    names = np.unique([images.get(id, id) for id in ids], return_inverse=True)[1].astype(np.int64)
    values, others = (_of_seeds(each, common, scores.by_seed(ids)) for each, scores in ((group, own), (base, other)))
    return compare_trainings(values - others, names)


def _of_seeds(group: Group, seeds: Sequence[int], values_SI: Floats) -> Floats:
    """Return the rows of some seeds; all of a reference of one run."""
    return values_SI if group.fixed else values_SI[[run.seed in seeds for run in group.runs]]


def _scores(group: Group, task: Task) -> Scores | None:
    return scores_of(group, task.name, primary_metric(group, task), "personalised")


def find_baseline(groups: Sequence[Group], baseline: str) -> Group | None:
    """Return the baseline's group; None if the default one is not among them.

    Raises:
        UserError: another baseline is not among them.
    """
    for group in groups:
        if baseline == group.label:
            return group
    if baseline == DEFAULT_BASELINE:
        return None
    names = ", ".join(group.label for group in groups)
    raise UserError(f"--baseline {baseline}: not among the runs. Expected one of: {names}.")
