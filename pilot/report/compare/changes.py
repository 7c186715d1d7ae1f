"""`pilot-bench compare OLD NEW`: changes beyond noise between two result folders (of two versions, two machines).

Runs are paired by profile, scenario, method and seed; seeds that only one side has are left out. Both sides answered
the same test examples, so a row (method, task) is computed from the differences per example, on the task's primary
metric, personalised:

- interval: the hierarchical bootstrap of `intervals` over seeds, clients and images, applied to the differences;
- p: the paired permutation test of `statistics`, Holm-corrected over all rows of the comparison that were tested.

A row is `better` or `worse` if p is below 0.05 and the interval excludes 0. The test alone is not enough: it asks
whether the trained models differ on such images, and models of the same method that differ only by rounding do differ,
as models of other seeds would. The interval alone is not enough either, because there are many rows.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from pilot.errors import UserError
from pilot.report.compare.change_causes import Cause, find_causes
from pilot.report.numbers.cost import CostSummary, summarise
from pilot.report.numbers.files import discover, has_answers, read_samples
from pilot.report.numbers.intervals import bootstrap_interval
from pilot.report.numbers.load import Run, Task, load_runs
from pilot.report.numbers.order import method_key
from pilot.report.numbers.statistics import LEVEL, ROUNDING, holm, paired_permutation
from pilot.report.numbers.summary import Group, group_runs, image_of_example, primary_metric, scores_of

Verdict = Literal["equal", "within noise", "better", "worse", "scored differently", "not compared"]
CHANGED: tuple[Verdict, ...] = ("better", "worse", "scored differently")
NO_ANSWERS = "a side has no answers"
Setting = tuple[str, str]
"""Profile and scenario."""


@dataclass(frozen=True)
class ChangeRow:
    """A method's primary metric on a task, before and after; None if it could not be computed.

    Attributes:
        old, new: means over the clients and the seeds that both sides have.
        verdict: `equal`: identical answers and scores; `scored differently`: identical answers with different scores,
            which noise cannot explain.
        reason: why a row was not compared, or `NO_ANSWERS`, else empty.
    """

    profile: str
    scenario: str
    method: str
    task: str
    metric: str
    num_seeds: int
    old: float | None
    new: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None
    num_images: int | None
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class CostChange:
    """Cost of a method before and after, means over the seeds that both sides have."""

    profile: str
    scenario: str
    method: str
    old: CostSummary
    new: CostSummary


@dataclass(frozen=True)
class Changes:
    """Comparison of two result folders; `only_old` and `only_new` name settings, methods and seeds of one side only."""

    old: str
    new: str
    rows: tuple[ChangeRow, ...]
    costs: tuple[CostChange, ...]
    causes: tuple[Cause, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """True if a row changed beyond noise."""
        return any(row.verdict in CHANGED for row in self.rows)


@dataclass(frozen=True)
class Pair:
    """The seeds of one method that both sides have, in the same order."""

    profile: str
    old: Group
    new: Group

    @property
    def seeds(self) -> list[tuple[Run, Run]]:
        """The old and the new run of each seed."""
        return list(zip(self.old.runs, self.new.runs, strict=True))


def same_settings(old: Path, new: Path) -> bool:
    """Return whether two folders are different result folders that share a profile and scenario.

    Method and run folders do not count: two of them are compared side by side.
    """
    settings = []
    for path in (old, new):
        if not path.is_dir() or path.name.startswith("seed") or path.parent.name == "runs":
            return False
        settings.append({_setting_of(run) for run in discover(path)})
    return old.resolve() != new.resolve() and bool(settings[0] & settings[1])


def find_changes(old: Path, new: Path) -> Changes:
    """Compare two result folders of the same scenarios: roots, scenario folders, or folders of one method or run.

    Raises:
        UserError: a run is unfinished, the folders have no scenario, method and seed in common, or the test sets
            differ.
    """
    sides = _load(old), _load(new)
    settings = _pair_settings(*sides)
    pairs: list[Pair] = []
    known = {own for own, _ in settings}, {other for _, other in settings}
    only = [["/".join(own) for own in side if own not in paired] for side, paired in zip(sides, known, strict=True)]
    for first, second in settings:
        found, *lonely = _pair_methods(sides[0][first], sides[1][second], first[0])
        pairs += found
        for names, more in zip(only, lonely, strict=True):
            names += more
    if not pairs:
        raise UserError(
            f"{old} and {new}: no method with the same seed on both sides. Expected two results of one scenario."
        )
    _check_tests(pairs)
    rows = [row for pair in pairs for row in _rows(pair)]
    costs = [
        CostChange(pair.profile, pair.old.scenario, pair.old.label, summarise(pair.old), summarise(pair.new))
        for pair in pairs
    ]
    causes = find_causes([(pair.old.label, seeds) for pair in pairs for seeds in pair.seeds])
    return Changes(
        str(old), str(new), tuple(_set_verdicts(rows)), tuple(costs), tuple(causes), tuple(only[0]), tuple(only[1])
    )


def _setting_of(run: Path) -> Setting:
    """Read profile and scenario off a run's path: <profile>/<scenario>/runs/<method>/seed<k>."""
    parts = run.resolve().parts
    return parts[-5], parts[-4]


def _load(path: Path) -> dict[Setting, list[Group]]:
    """Load the runs below a folder by profile and scenario; labels are assigned within each setting."""
    folders: dict[Path, list[Path]] = {}
    for run in discover(path):
        folders.setdefault(run.resolve().parents[2], []).append(run)
    loaded: dict[Setting, list[Group]] = {}
    for runs in folders.values():
        groups = group_runs(load_runs(runs))
        first = groups[0].runs[0]
        loaded[str(first.config.get("profile", _setting_of(first.path)[0])), first.scenario] = groups
    return loaded


def _pair_settings(old: Mapping[Setting, object], new: Mapping[Setting, object]) -> list[tuple[Setting, Setting]]:
    """Pair the settings of both sides; if each side has only one, just the scenarios have to match."""
    shared = [(setting, setting) for setting in sorted(old) if setting in new]
    if not shared and len(old) == len(new) == 1:
        (one,), (other,) = old, new
        shared = [(one, other)] if one[1] == other[1] else []
    if not shared:
        names = [", ".join("/".join(setting) for setting in sorted(side)) for side in (old, new)]
        raise UserError(
            f"no scenario in common: one side has {names[0]}, the other {names[1]}. Expected a scenario of both."
        )
    return shared


def _pair_methods(old: Sequence[Group], new: Sequence[Group], profile: str) -> tuple[list[Pair], list[str], list[str]]:
    """Pair methods by the seeds that both sides have; return the pairs, and what only the old or the new side has."""
    sides = {group.label: group for group in old}, {group.label: group for group in new}
    pairs: list[Pair] = []
    only: tuple[list[str], list[str]] = ([], [])
    for label in sorted({*sides[0], *sides[1]}, key=method_key):
        seeds = [{run.seed for run in side[label].runs} if label in side else set() for side in sides]
        both = seeds[0] & seeds[1]
        for own, names in zip(seeds, only, strict=True):
            if own - both:
                counted = f", seed {', '.join(map(str, sorted(own - both)))}" if both else ""
                names.append(f"{profile}/{old[0].scenario}: {label}{counted}")
        if both:
            kept = [replace(side[label], runs=tuple(r for r in side[label].runs if r.seed in both)) for side in sides]
            pairs.append(Pair(profile, kept[0], kept[1]))
    return pairs, *only


def _check_tests(pairs: Sequence[Pair]) -> None:
    """Raise `UserError` if the test sets of a pair differ."""
    for pair in pairs:
        for old, new in pair.seeds:
            imported = old.imported or new.imported
            if old.test_examples != new.test_examples if imported else old.test_digest != new.test_digest:
                raise UserError(
                    f"{old.path} and {new.path}: their test sets differ, so answers cannot be paired. Compare results "
                    "over the same data, or use --side-by-side --allow-different tests."
                )


def _rows(pair: Pair) -> list[ChangeRow]:
    if not all(has_answers(run.path) for seeds in pair.seeds for run in seeds):
        rows = [_row(pair, task, None) for task in pair.old.tasks]
        return [replace(row, reason=row.reason or NO_ANSWERS) for row in rows]
    answers = [(_answers(old), _answers(new)) for old, new in pair.seeds]
    same = {task for task in pair.old.tasks if all(old[task.name] == new[task.name] for old, new in answers)}
    return [_row(pair, task, task in same) for task in pair.old.tasks]


def _row(pair: Pair, task: Task, same_answers: bool | None) -> ChangeRow:
    """Compare a task; without answers (None), scores of all examples that are equal count as equal answers."""
    metric = primary_metric(pair.old, task)
    start = pair.profile, pair.old.scenario, pair.old.label, task.name, metric, len(pair.old.runs)
    nothing = None, None, None, None, None, None, None, None
    if metric != (other := primary_metric(pair.new, task)):
        return ChangeRow(*start, *nothing, "not compared", f"the new side has {other}")
    old, new = (scores_of(side, task.name, metric, "personalised") for side in (pair.old, pair.new))
    if old is None or new is None:
        return ChangeRow(*start, *nothing, "not compared", "no scores by example")
    if old.ids != new.ids or old.values_SCI.shape != new.values_SCI.shape:
        return ChangeRow(*start, *nothing, "not compared", "other clients or examples")
    means = float(old.client_means().mean()), float(new.client_means().mean())
    difference = replace(new, values_SCI=new.values_SCI - old.values_SCI)
    same_scores = not np.nan_to_num(difference.values_SCI).any()
    if same_scores if same_answers is None else same_answers:
        verdict: Verdict = "equal" if same_scores else "scored differently"
        return ChangeRow(*start, *means, means[1] - means[0], None, None, None, None, None, verdict)
    low, high = bootstrap_interval(difference) or (None, None)
    images = image_of_example(pair.old.runs[0].scenario_dir, task.name)
    result = paired_permutation(new.by_id(), old.by_id(), images)
    assert result is not None, "both sides have the same examples"
    p_value, num_images = result[1:]
    tested = means[1] - means[0], low, high, p_value
    return ChangeRow(*start, *means, *tested, None, num_images, "within noise")


def _set_verdicts(rows: Sequence[ChangeRow]) -> list[ChangeRow]:
    """Apply Holm's correction over the tested rows and set their verdicts."""
    adjusted = iter(holm([row.p_value for row in rows if row.p_value is not None]))
    return [row if row.p_value is None else _with_verdict(replace(row, p_holm=next(adjusted))) for row in rows]


def _with_verdict(row: ChangeRow) -> ChangeRow:
    assert row.p_holm is not None and row.difference is not None
    # Without an interval all differences are equal: no spread can explain them, unless they are 0.
    apart = (
        abs(row.difference) > ROUNDING
        if row.ci_low is None or row.ci_high is None
        else not row.ci_low <= 0 <= row.ci_high
    )
    if row.p_holm >= LEVEL or not apart:
        return row
    return replace(row, verdict="better" if row.difference > 0 else "worse")


def _answers(run: Run) -> dict[str, dict[tuple[str, tuple[int, ...]], str]]:
    """Read the personalised answers of a run by task, then by example and clients."""
    found: dict[str, dict[tuple[str, tuple[int, ...]], str]] = defaultdict(dict)
    for row in read_samples(run.path):
        if row["protocol"] == "personalised":
            found[row["task"]][row["id"], tuple(row["clients"])] = row["prediction"]
    return found
