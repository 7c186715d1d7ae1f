"""Whether a study's settings order the methods alike: Kendall's tau with an interval, and what becomes of each mark.

Tau-b (Kendall 1945) of the methods' means on a task's primary metric in two settings: 1 for the same order, -1 for the
reverse, 0 for no relation. Its interval is a bootstrap: each replicate draws the seeds of either setting, which all
methods share, and the images, which settings with the same test set share; the clients are those of the scenario.
Replicates have the noise of the means once more, so where methods are close, the interval is nearer to 0 than tau is;
it is widened to contain tau, which ties in the means alone can put outside.

A conclusion is the mark of a method against the part's baseline on one task (`p_holm` below 0.05): what a reader would
quote. It holds everywhere, on some settings, nowhere, or is reversed.

- Kendall, The treatment of ties in ranking problems, Biometrika 33, 1945.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pilot.config.study import Setting
from pilot.report.numbers.load import Task
from pilot.report.numbers.statistics import LEVEL, Floats, Scores
from pilot.report.numbers.studies import PartTable, StudyRow
from pilot.report.numbers.summary import Group, primary_metric, scores_of

NUM_REPLICATES = 2_000
MIN_METHODS = 3
UP, DOWN, NONE = "up", "down", "none"
EVERYWHERE, SOMEWHERE, NOWHERE, REVERSED = "everywhere", "somewhere", "nowhere", "reversed"


@dataclass(frozen=True)
class AgreementRow:
    """One line of `<part>-order.csv`: Kendall's tau of the methods' order on a task in two settings."""

    task: str
    metric: str
    scenario: str
    profile: str
    other_scenario: str
    other_profile: str
    num_methods: int
    tau: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class Conclusion:
    """A method's marks against the baseline on a task, one per setting, and what they amount to together."""

    method: str
    task: str
    marks: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One of EVERYWHERE, SOMEWHERE, NOWHERE and REVERSED."""
        found = set(self.marks) - {NONE}
        if len(found) > 1:
            return REVERSED
        if not found:
            return NOWHERE
        return EVERYWHERE if NONE not in self.marks else SOMEWHERE


def compares_orders(table: PartTable) -> bool:
    """Return whether a part has settings to compare, and methods enough to be ordered."""
    return len(table.grids) > 1 and len(table.part.methods) >= MIN_METHODS


def agreement_rows(table: PartTable) -> list[AgreementRow]:
    """Return the lines of `<part>-order.csv`, by task and pair of settings in the study's order."""
    return [
        _row(task, first, second, table.groups[first], table.groups[second])
        for task in table.tasks
        for first, second in itertools.combinations(table.grids, 2)
    ]


def conclusions(table: PartTable) -> list[Conclusion]:
    """Return every method's conclusion on every task, by task and method in the study's order."""
    return [
        Conclusion(method, task.name, tuple(_mark(table.row(setting, method, task)) for setting in table.grids))
        for task in table.tasks
        for method in table.part.methods
        if method != table.part.baseline
    ]


def kendall_tau(first_RM: Floats, second_RM: Floats) -> Floats:
    """Compute tau-b of two rankings of M methods, for R pairs of them; NaN if all of either are equal."""
    one, other = np.triu_indices(first_RM.shape[1], 1)
    signs, others = (np.sign(values[:, one] - values[:, other]) for values in (first_RM, second_RM))
    untied = np.abs(signs).sum(axis=1) * np.abs(others).sum(axis=1)
    with np.errstate(invalid="ignore"):
        found: Floats = (signs * others).sum(axis=1) / np.sqrt(untied)
    return found


def _mark(row: StudyRow) -> str:
    if row.difference is None or row.p_holm is None or row.p_holm >= LEVEL:
        return NONE
    return UP if row.difference > 0 else DOWN


def _row(
    task: Task, first: Setting, second: Setting, groups: Mapping[str, Group], others: Mapping[str, Group]
) -> AgreementRow:
    metric = primary_metric(next(iter(groups.values())), task)
    pairs = [
        (own, other)
        for label in groups
        if label in others
        and (own := scores_of(groups[label], task.name, metric, "personalised")) is not None
        and (other := scores_of(others[label], task.name, metric, "personalised")) is not None
    ]
    start = (task.name, metric, first.scenario, first.profile, second.scenario, second.profile, len(pairs))
    if len(pairs) < MIN_METHODS:
        return AgreementRow(*start, None, None, None)
    sides = ([own for own, _ in pairs], [other for _, other in pairs])
    tau = kendall_tau(*(np.array([[score.client_means().mean() for score in side]]) for side in sides))[0]
    rng = np.random.default_rng(0)
    shared = sides[0][0].ids == sides[1][0].ids
    weights = _image_weights(sides[0][0], rng)
    draws = [weights, weights if shared else _image_weights(sides[1][0], rng)]
    replicates = kendall_tau(*(_means(side, draw, rng) for side, draw in zip(sides, draws, strict=True)))
    known = replicates[~np.isnan(replicates)]
    if np.isnan(tau) or not len(known):
        return AgreementRow(*start, None, None, None)
    low, high = np.quantile(known, [LEVEL / 2, 1 - LEVEL / 2]).tolist()
    return AgreementRow(*start, float(tau), min(low, float(tau)), max(high, float(tau)))


def _image_weights(scores: Scores, rng: np.random.Generator) -> Floats:
    """Draw images with replacement; return each example's share of a replicate, shape (R, I)."""
    num = int(scores.images_I.max()) + 1
    drawn = rng.multinomial(num, np.full(num, 1 / num), NUM_REPLICATES).astype(np.float64)
    weights_RI = drawn[:, scores.images_I]
    return weights_RI / weights_RI.sum(axis=1, keepdims=True)


def _means(side: Sequence[Scores], weights_RI: Floats, rng: np.random.Generator) -> Floats:
    """Draw seeds, the same for all methods with as many; return every method's mean in each replicate, shape (R, M)."""
    most = max(len(scores.values_SCI) for scores in side)
    seeds_RS = rng.multinomial(most, np.full(most, 1 / most), NUM_REPLICATES) / most
    means = []
    for scores in side:
        values_RS = weights_RI @ scores.by_seed(scores.ids).T
        means.append((values_RS * seeds_RS).sum(axis=1) if values_RS.shape[1] == most else values_RS.mean(axis=1))
    return np.stack(means, axis=1)
