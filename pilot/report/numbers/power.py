"""How many seeds a difference to the baseline needs, from the variation that finished runs show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pilot.errors import UserError
from pilot.report.numbers.load import Task
from pilot.report.numbers.retraining import Retraining, power_of, seeds_needed
from pilot.report.numbers.significance import DEFAULT_BASELINE, find_baseline, retrained
from pilot.report.numbers.statistics import LEVEL
from pilot.report.numbers.summary import Group, primary_metric

ALL = "mean of all"


@dataclass(frozen=True)
class PowerRow:
    """How many seeds find a difference between a method and the baseline on a task's primary metric.

    Attributes:
        method: a method, or `mean of all` with their mean variances.
        std_training: standard deviation of the difference from one training to the next.
        std_images: what other images of the same kind would change in every training alike.
        measured_seeds: number of seeds that both are known from.
        difference: the true difference asked about, in the metric's unit.
        power: share of cases in which the measured seeds find it.
        seeds: fewest seeds that find it in 80 % of cases; None if no number of seeds does, with these test images.
        seeds_corrected: the same at the strictest level of Holm's correction over the table's tests.
    """

    scenario: str
    task: str
    metric: str
    method: str
    baseline: str
    std_training: float
    std_images: float
    measured_seeds: int
    difference: float
    power: float
    seeds: int | None
    seeds_corrected: int | None


def power_rows(
    groups: Sequence[Group], differences: Mapping[str | None, float], baseline: str = DEFAULT_BASELINE
) -> list[PowerRow]:
    """Compute the rows of every scenario among `groups`, by task; references are left out.

    Args:
        groups: `group_runs(runs)`.
        differences: by task, None for all others; tasks without any are left out.
        baseline: the method that the others are compared with.

    Raises:
        UserError: a task or the baseline is not among the runs, or no method has two seeds in common with it.
    """
    tasks = {task.name for group in groups for task in group.tasks}
    if unknown := sorted(name for name in differences if name is not None and name not in tasks):
        raise UserError(f"--difference {unknown[0]}: unknown task. Expected one of: {', '.join(sorted(tasks))}.")
    rows = []
    for scenario in sorted({group.scenario for group in groups}):
        members = [group for group in groups if group.scenario == scenario]
        base = find_baseline(members, baseline)
        if base is None:
            raise UserError(f"--baseline {baseline}: not among the runs of {scenario}. Name one with --baseline.")
        found = {
            task: {
                group.label: (group.reference, result)
                for group in members
                if group is not base and (result := retrained(group, base, task)) is not None
            }
            for task in base.tasks
        }
        num_tests = sum(map(len, found.values()))
        for task, tested in found.items():
            difference = differences.get(task.name, differences.get(None))
            results = {label: result for label, (reference, result) in tested.items() if not reference}
            if difference is not None and results:
                rows += _of_task(base, task, results, difference, num_tests)
    if not rows:
        raise UserError(f"power: no method has two seeds in common with {baseline}. Train more seeds first.")
    return rows


def _of_task(
    base: Group, task: Task, results: Mapping[str, Retraining], difference: float, num_tests: int
) -> list[PowerRow]:
    parts = {label: (r.of_training, r.of_images, r.num_seeds, r.num_images) for label, r in results.items()}
    means = [sum(part[place] for part in parts.values()) / len(parts) for place in (0, 1)]
    parts[ALL] = (
        means[0],
        means[1],
        min(r.num_seeds for r in results.values()),
        min(r.num_images for r in results.values()),
    )
    return [
        PowerRow(
            *(base.scenario, task.name, primary_metric(base, task), label, base.label),
            *(of_training**0.5, of_images**0.5, num_seeds, difference),
            power_of(difference, of_training, of_images, num_seeds, num_images=num_images),
            seeds_needed(difference, of_training, of_images, num_images=num_images),
            seeds_needed(difference, of_training, of_images, LEVEL / num_tests, num_images),
        )
        for label, (of_training, of_images, num_seeds, num_images) in parts.items()
    ]
