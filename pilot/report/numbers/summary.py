"""Tidy rows of runs: `main.csv` and `per_client.csv`.

A cell is (method, task, metric, protocol). Its mean is over the task's clients, then over seeds; its standard
deviation is over the seeds' means (ddof 1, empty for one seed). The `worst_client` protocol takes, within
each seed, the minimum over the task's clients of the personalised value; for a single-model method this is
the value itself. A task without any answer (an imported run may leave tasks out) has one line of status `missing`.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from pilot.data.manifest import checked_records
from pilot.data.tables import read_table
from pilot.errors import UserError
from pilot.evaluation.metrics import METRICS, PARSE_FAILURES, metric_bounds, metric_key
from pilot.evaluation.public import FACTS, scene_of_fact
from pilot.io.atomic import read_json
from pilot.io.layout import IMAGES
from pilot.report.numbers.intervals import bootstrap_clients, bootstrap_interval
from pilot.report.numbers.load import Run, Task
from pilot.report.numbers.order import PROTOCOLS, is_reference, method_key
from pilot.report.numbers.statistics import Floats, Scores

_CORPUS_TOLERANCE = 1e-3


@dataclass(frozen=True)
class MainRow:
    """One line of `main.csv`; None is written as an empty field."""

    scenario: str
    method: str
    task: str
    metric: str
    protocol: str
    mean: float | None
    std: float | None
    num_seeds: int
    ci_low: float | None
    ci_high: float | None
    parse_failure_rate: float | None
    status: str


@dataclass(frozen=True)
class ClientRow:
    """One line of `per_client.csv`: a metric of one client's model in one run."""

    scenario: str
    method: str
    seed: int
    task: str
    client: int
    metric: str
    protocol: str
    value: float | None
    num_examples: int
    status: str
    reason: str


@dataclass(frozen=True)
class Group:
    """The seeds of one method in one scenario."""

    scenario: str
    label: str
    runs: tuple[Run, ...]

    @property
    def method(self) -> str:
        """Name of the method, without a suffix that the label may have."""
        return self.runs[0].method

    @property
    def reference(self) -> bool:
        """True if the method is a reference (see `order.is_reference`)."""
        return is_reference(self.method, self.runs[0].reference)

    @property
    def fixed(self) -> bool:
        """True if its only run is a reference's, such as `untuned` or imported answers: no other seed is trained."""
        return len(self.runs) == 1 and self.runs[0].reference

    @property
    def imported(self) -> tuple[str, ...]:
        """Formats that the answers were imported from; empty for runs that were not imported."""
        return tuple(sorted({name for run in self.runs for name in run.imported}))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks in scenario order."""
        return self.runs[0].tasks

    def at(self, evaluation: str) -> "Group | None":
        """Return the group with another evaluation of its runs; None if a run has not got it."""
        runs = tuple(run.at(evaluation) for run in self.runs)
        return replace(self, runs=tuple(run for run in runs if run)) if all(runs) else None


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group runs by scenario and label, in the order of the tables."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.scenario, run.label].append(run)
    keys = sorted(groups, key=lambda key: (key[0], method_key(key[1])))
    return [Group(*key, tuple(sorted(groups[key], key=lambda run: run.seed))) for key in keys]


def main_rows(groups: Sequence[Group], *, only: Collection[str] | None = None) -> list[MainRow]:
    """Return the lines of `main.csv`, sorted by scenario, task, metric, protocol and method.

    Args:
        groups: `group_runs(runs)`.
        only: the metrics to list; all by default.
    """
    keyed = []
    for group in groups:
        for position, task in enumerate(group.tasks):
            for metric, protocol in _cells(group, task):
                if only is None or metric in only:
                    row = _main_row(group, task, metric, protocol)
                    order = (group.scenario, position, metric_key(metric), PROTOCOLS.index(protocol))
                    keyed.append(((*order, method_key(group.label)), row))
    return [row for _, row in sorted(keyed, key=lambda pair: pair[0])]


def primary_metric(group: Group, task: Task) -> str:
    """Return the metric of the headline table; for boxes not scored in the task's frame, in the one that was scored."""
    primary = task.metric
    found = {entry.metric for run in group.runs for entry in run.entries if entry.task == task.name}
    framed = sorted(metric for metric in found if metric.split("[")[0] == primary.split("[")[0])
    return primary if primary in found or not framed else framed[0]


def client_rows(groups: Sequence[Group]) -> list[ClientRow]:
    """Return the lines of `per_client.csv`, one per entry of every run's `metrics.json`, in a fixed order."""
    rows = [
        ClientRow(
            *(group.scenario, group.label, run.seed, entry.task, entry.client, entry.metric, entry.protocol),
            *(entry.value, entry.num_examples, entry.status, entry.reason),
        )
        for group in groups
        for run in group.runs
        for entry in run.entries
    ]
    return sorted(
        rows,
        key=lambda row: (
            row.scenario,
            method_key(row.method),
            row.seed,
            row.client,
            row.protocol,
            metric_key(row.metric),
        ),
    )


def values_by_seed_and_client(group: Group, task: str, metric: str, protocol: str) -> Floats | None:
    """Return the metric's values, shape (S, C); None if any of them is unavailable.

    Raises:
        UserError: a run of the group lacks a client that another run has.
    """
    found = [
        {
            entry.client: entry
            for entry in run.entries
            if (entry.task, entry.metric, entry.protocol) == (task, metric, protocol)
        }
        for run in group.runs
    ]
    clients = sorted({client for entries in found for client in entries})
    for run, entries in zip(group.runs, found, strict=True):
        if missing := [client for client in clients if client not in entries]:
            raise UserError(
                f"{run.path}/eval/metrics.json: no {metric} ({protocol}) of {task} for clients {missing}, "
                f"which other seeds of {group.label} have. {_remedy(run)}"
            )
    values = [[entries[client].value for client in clients] for entries in found]
    if not clients or any(value is None for row in values for value in row):
        return None
    return np.array(values, dtype=np.float64)


def scores_of(group: Group, task: str, metric: str, protocol: str) -> Scores | None:
    """Collect the per-example scores of all seeds; None if there are none or the metric is not their mean.

    BLEU and METEOR of a corpus are not the mean over its sentences, so their per-example values must not be
    resampled as if they were.

    Raises:
        UserError: a run lacks a client that another run has, or the seeds do not answer the same examples.
    """
    corpus = values_by_seed_and_client(group, task, metric, protocol)
    seeds = [run.per_example.get((task, protocol, metric), {}) for run in group.runs]
    if corpus is None or not all(seeds):
        return None
    try:
        scores = Scores.build(seeds, image_of_example(group.runs[0].scenario_dir, task))
    except ValueError as error:
        paths = ", ".join(str(run.path) for run in group.runs)
        raise UserError(f"{task}, {metric}: {error}: {paths}. {_remedy(group.runs[0])}") from error
    means = scores.client_means()
    if means.shape != corpus.shape or np.abs(means - corpus).max() > _CORPUS_TOLERANCE:
        return None
    return scores


@cache
def image_of_example(scenario_dir: Path, task: str) -> dict[str, str]:
    """Map example ids to the digests of their images, from `data/<task>/records.parquet`.

    Statements about public scenes, which have no records, are mapped to their scenes. Without the data, examples are
    mapped to the numbers of an unpacked folder's `images.json`, or the result is empty.
    """
    if task == FACTS:
        return scene_of_fact()
    path, unpacked = checked_records(scenario_dir / "data", task), scenario_dir / IMAGES
    if not path.exists():
        return dict(read_json(unpacked, {}).get(task, {})) if unpacked.exists() else {}
    table = read_table(path, ["id", "image_sha256"])
    return dict(zip(table["id"].to_pylist(), table["image_sha256"].to_pylist(), strict=True))


def unavailable_reasons(groups: Sequence[Group]) -> list[str]:
    """Return the distinct `metric: reason` of all values that could not be computed, sorted."""
    entries = [entry for group in groups for run in group.runs for entry in run.entries]
    failed = [entry for entry in entries if entry.status != "ok" or entry.value is None]
    return sorted({f"{entry.metric}: {entry.reason or 'no reason given'}" for entry in failed})


def _remedy(run: Run) -> str:
    return "Import it for every seed." if run.imported else f"Evaluate again: pilot-bench evaluate {run.path}"


def _cells(group: Group, task: Task) -> list[tuple[str, str]]:
    pairs = {
        (entry.metric, entry.protocol)
        for run in group.runs
        for entry in run.entries
        if entry.task == task.name and entry.metric != PARSE_FAILURES
    }
    if not pairs:
        return [(task.metric, "personalised")]
    return sorted(pairs | {(metric, "worst_client") for metric, protocol in pairs if protocol == "personalised"})


def _main_row(group: Group, task: Task, metric: str, protocol: str) -> MainRow:
    worst = protocol == "worst_client"
    read_from = "personalised" if worst else protocol
    values_SC = values_by_seed_and_client(group, task.name, metric, read_from)
    start = (group.scenario, group.label, task.name, metric, protocol)
    if values_SC is None:
        answered = any(entry.task == task.name for run in group.runs for entry in run.entries)
        return MainRow(*start, None, None, len(group.runs), None, None, None, "unavailable" if answered else "missing")
    per_seed = values_SC.min(axis=1) if worst else values_SC.mean(axis=1)
    low, high = (None if worst else _interval(group, task.name, metric, protocol, values_SC)) or (None, None)
    std = float(per_seed.std(ddof=1)) if len(per_seed) > 1 else None
    failures = _parse_failures(group, task.name, read_from, worst)
    return MainRow(*start, float(per_seed.mean()), std, len(group.runs), low, high, failures, "ok")


def _interval(group: Group, task: str, metric: str, protocol: str, values_SC: Floats) -> tuple[float, float] | None:
    scores, bounds = scores_of(group, task, metric, protocol), metric_bounds(metric)
    if scores is None:
        return bootstrap_clients(values_SC, bounds=bounds) if metric in METRICS else None
    return bootstrap_interval(scores, bounds=bounds)


def _parse_failures(group: Group, task: str, protocol: str, worst: bool) -> float | None:
    values_SC = values_by_seed_and_client(group, task, PARSE_FAILURES, protocol)
    if values_SC is None:
        return None
    return float((values_SC.max(axis=1) if worst else values_SC.mean(axis=1)).mean())
