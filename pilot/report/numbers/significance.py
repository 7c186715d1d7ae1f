"""Significance tests over the test images: methods against a baseline, and against the best method."""

from collections.abc import Sequence
from dataclasses import dataclass

from pilot.errors import UserError
from pilot.report.numbers.load import Task
from pilot.report.numbers.statistics import LEVEL, holm, paired_permutation
from pilot.report.numbers.summary import Group, image_of_example, primary_metric, scores_of, values_by_seed_and_client

DEFAULT_BASELINE = "fedavg"


@dataclass(frozen=True)
class SignificanceRow:
    """One line of `significance.csv`: a method against the baseline on a task's primary metric."""

    scenario: str
    task: str
    metric: str
    protocol: str
    method: str
    baseline: str
    difference: float
    p_value: float
    p_holm: float
    num_images: int


def against_baseline(groups: Sequence[Group], baseline: str) -> list[SignificanceRow]:
    """Test every method against `baseline` on each task's primary metric, personalised protocol.

    Holm's correction is over all rows of one scenario (methods x tasks). Methods without per-example scores have no
    row. A scenario without the default baseline among its runs is not tested and has no rows.

    Raises:
        UserError: a baseline other than the default is not among the runs.
    """
    rows = []
    for scenario in sorted({group.scenario for group in groups}):
        members = [group for group in groups if group.scenario == scenario]
        base = _find_baseline(members, baseline)
        if base is None:
            continue
        found = [
            (group.label, task, result)
            for task in base.tasks
            for group in members
            if group is not base and (result := compare_groups(group, base, task)) is not None
        ]
        adjusted = holm([result[1] for *_, result in found])
        rows += [
            SignificanceRow(
                *(scenario, task.name, primary_metric(base, task), "personalised", label, baseline),
                *(result[0], result[1], p_holm, result[2]),
            )
            for (label, task, result), p_holm in zip(found, adjusted, strict=True)
        ]
    return rows


def best_and_close(groups: Sequence[Group], task: Task) -> tuple[str | None, frozenset[str]]:
    """Find the best method on a task's primary metric, and the methods not significantly different from it.

    References (`order.is_reference`) are left out. "Not significantly different": the paired permutation test against
    the best, Holm-corrected over the task's methods, has p >= 0.05.

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
    results = {
        label: result
        for label in means
        if label != best and (result := compare_groups(by_label[label], by_label[best], task)) is not None
    }
    adjusted = holm([result[1] for result in results.values()])
    close = {label for label, p in zip(results, adjusted, strict=True) if p >= LEVEL}
    return best, frozenset(close)


def compare_groups(group: Group, base: Group, task: Task) -> tuple[float, float, int] | None:
    """Test two methods on a task's primary metric with `paired_permutation`; None without common examples."""
    own = scores_of(group, task.name, primary_metric(group, task), "personalised")
    other = scores_of(base, task.name, primary_metric(base, task), "personalised")
    if own is None or other is None:
        return None
    return paired_permutation(own.by_id(), other.by_id(), image_of_example(base.runs[0].scenario_dir, task.name))


def _find_baseline(groups: Sequence[Group], baseline: str) -> Group | None:
    for group in groups:
        if baseline == group.label:
            return group
    if baseline == DEFAULT_BASELINE:
        return None
    names = ", ".join(group.label for group in groups)
    raise UserError(f"--baseline {baseline}: not among the runs. Expected one of: {names}.")
