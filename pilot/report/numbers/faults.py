"""Quality lost by faults: runs below `faults/` of a scenario, each paired with the ordinary run of its method and seed.

The main figure is the mean over a task's clients that are not faulty themselves. Drop-out makes no client faulty, so
there it is the mean over all clients of the task.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilot.config.federation import FederationConfig
from pilot.config.files import restored
from pilot.errors import UserError
from pilot.evaluation.metrics import PARSE_FAILURES, metric_key
from pilot.io.layout import FAULTS, run_folder
from pilot.report.numbers.comparable import check_comparable
from pilot.report.numbers.incidents import absences, excluded_updates, skipped_rounds
from pilot.report.numbers.load import Run, Task, load_run, load_runs
from pilot.report.numbers.order import sort_methods

SAME_DIGESTS = ("source", "features", "scenario")
"""Digests that must be the same for a faulty run and its counterpart, in addition to those that `compare` checks."""

ATTACK_TEXTS = {
    "nan": "a NaN in every tensor",
    "sign_flip": "the change with its sign flipped",
    "scale": "{factor:g} times the change",
    "free_rider": "what was received",
}


@dataclass(frozen=True)
class Pair:
    """A run with a fault and the ordinary run of the same method and seed."""

    faulty: Run
    ordinary: Run


@dataclass(frozen=True)
class FaultRow:
    """One line of `faults.csv`: means over `clients` and seeds; None is written as an empty field.

    `lost` is `value_without` - `value_with` (negative: gained), `lost_relative` its share of `value_without`, and
    `lost_all_clients` the same difference over all clients of the task, including the faulty ones. The counts are
    totals over seeds. `status` is `ok`, `unavailable` (no value of the metric, or every client of the task is faulty)
    or `missing` (no run).
    """

    scenario: str
    method: str
    fault: str
    task: str
    metric: str
    num_seeds: int
    clients: str
    value_without: float | None
    value_with: float | None
    lost: float | None
    lost_relative: float | None
    lost_all_clients: float | None
    excluded_updates: int | None
    skipped_rounds: int | None
    absences: int | None
    status: str


@dataclass(frozen=True)
class FaultTable:
    """A scenario's runs with faults.

    Attributes:
        pairs: faulty and ordinary runs by fault and method; no entry without a run.
        settings: section `federation` of each fault.
        ordinary_settings: section `federation` of the ordinary runs.
    """

    scenario: str
    tasks: tuple[Task, ...]
    methods: tuple[str, ...]
    pairs: dict[tuple[str, str], tuple[Pair, ...]]
    settings: dict[str, FederationConfig]
    ordinary_settings: FederationConfig

    @property
    def seeds(self) -> list[int]:
        """Seeds of all faulty runs, ascending."""
        return sorted({pair.faulty.seed for pairs in self.pairs.values() for pair in pairs})


def load_faults(scenario_dir: Path) -> FaultTable:
    """Load all runs below `faults/` with their ordinary counterparts.

    Raises:
        UserError: there are no such runs, one is unfinished or has no counterpart, or the two differ in more than the
            fault.
    """
    folders = [folder for folder in sorted((scenario_dir / FAULTS).glob("*")) if (folder / "runs").is_dir()]
    if not folders:
        raise UserError(
            f"{scenario_dir / FAULTS}: no runs with a fault. Train some: `pilot-bench train ... --fault NAME`, or "
            "`snakemake --cores all faults` for everything."
        )
    pairs: dict[tuple[str, str], tuple[Pair, ...]] = {}
    ordinary: dict[tuple[str, int], Run] = {}
    for folder in folders:
        for run in load_runs([folder]):
            key = run.method, run.seed
            ordinary[key] = ordinary[key] if key in ordinary else _counterpart(scenario_dir, run)
            cell = folder.name, run.method
            pairs[cell] = (*pairs.get(cell, ()), Pair(run, ordinary[key]))
    everything = [pair for of_cell in pairs.values() for pair in of_cell]
    check_comparable([*ordinary.values(), *(pair.faulty for pair in everything)], allow=["seeds"])
    for pair in everything:
        _check_pair(pair)
    runs_of: dict[str, list[Run]] = defaultdict(list)
    for (fault, _), of_cell in pairs.items():
        runs_of[fault] += [pair.faulty for pair in of_cell]
    settings = {fault: _common_settings(runs) for fault, runs in runs_of.items()}
    first = everything[0].ordinary
    methods = tuple(sort_methods(method for _, method in pairs))
    return FaultTable(first.scenario, first.tasks, methods, pairs, settings, _common_settings(list(ordinary.values())))


def fault_rows(table: FaultTable) -> list[FaultRow]:
    """Return the lines of `faults.csv`: one per task, metric, fault and method."""
    rows = []
    for task in table.tasks:
        for metric in _metrics(table, task):
            for fault, settings in table.settings.items():
                bad = faulty_clients(settings)
                for method in table.methods:
                    pairs = table.pairs.get((fault, method), ())
                    rows.append(_row((table.scenario, method, fault, task.name, metric), pairs, task, bad))
    return rows


def faulty_clients(settings: FederationConfig) -> frozenset[int]:
    """Return the ids of the clients that send faulty updates."""
    return frozenset(client for attack in settings.attacks for client in attack.clients)


def describe(settings: FederationConfig) -> str:
    """Describe the settings of a section `federation` that differ from the defaults."""
    default = FederationConfig()
    parts = []
    for name, value in settings.participation:
        if value != getattr(default.participation, name):
            parts.append(f"{name} {value}")
    for attack in settings.attacks:
        named = f"client{'s' if len(attack.clients) > 1 else ''} {', '.join(map(str, attack.clients))}"
        parts.append(f"{named}: {ATTACK_TEXTS[attack.kind].format(factor=attack.factor)}")
    for name, value in settings.defence:
        if value != getattr(default.defence, name):
            parts.append(f"{name} {value}")
    if settings.privacy:
        parts.append(f"privacy: clip_norm {settings.privacy.clip_norm}, noise {settings.privacy.noise_multiplier}")
    return "; ".join(parts) or "none"


def _row(key: tuple[str, str, str, str, str], pairs: Sequence[Pair], task: Task, faulty: Collection[int]) -> FaultRow:
    if not pairs:
        return FaultRow(*key, 0, "", None, None, None, None, None, None, None, None, "missing")
    honest = [client for client in task.clients if client not in faulty]
    ordinary, faulty_runs = [pair.ordinary for pair in pairs], [pair.faulty for pair in pairs]
    counts = (
        sum(excluded_updates(run) for run in faulty_runs),
        sum(len(skipped_rounds(run)) for run in faulty_runs),
        sum(absences(run) for run in faulty_runs),
    )
    without, with_ = _mean(ordinary, task, key[4], honest), _mean(faulty_runs, task, key[4], honest)
    lost = _difference(without, with_)
    relative = lost / without if lost is not None and without else None
    lost_all = _difference(_mean(ordinary, task, key[4], task.clients), _mean(faulty_runs, task, key[4], task.clients))
    status = "unavailable" if lost is None else "ok"
    name = " ".join(map(str, honest))
    return FaultRow(*key, len(pairs), name, without, with_, lost, relative, lost_all, *counts, status)


def _difference(without: float | None, with_: float | None) -> float | None:
    return None if without is None or with_ is None else without - with_


def _mean(runs: Sequence[Run], task: Task, metric: str, clients: Collection[int]) -> float | None:
    """Average a metric (personalised) over clients and runs; None if there are none or a value is missing."""
    values = [
        entry.value
        for run in runs
        for entry in run.entries
        if (entry.task, entry.metric, entry.protocol) == (task.name, metric, "personalised") and entry.client in clients
    ]
    if len(values) != len(runs) * len(clients) or not values:
        return None
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _metrics(table: FaultTable, task: Task) -> list[str]:
    runs = [run for of_cell in table.pairs.values() for pair in of_cell for run in (pair.faulty, pair.ordinary)]
    found = {entry.metric for run in runs for entry in run.entries if entry.task == task.name}
    return sorted(found - {PARSE_FAILURES}, key=metric_key)


def _counterpart(scenario_dir: Path, run: Run) -> Run:
    folder = run_folder(scenario_dir, run.method, run.seed)
    if not folder.is_dir():
        raise UserError(
            f"{run.path}: no run of the method without the fault (looked for {folder}). Train it: `pilot-bench "
            f"train --scenario {run.scenario} --method {run.method} --seed {run.seed}`, then `pilot-bench evaluate`."
        )
    return load_run(folder)


def _check_pair(pair: Pair) -> None:
    """Raise `UserError` if the two runs of a pair differ in more than the fault."""
    faulty, ordinary = pair.faulty.config, pair.ordinary.config
    different = [
        f"{name} digest" for name in SAME_DIGESTS if faulty["digests"].get(name) != ordinary["digests"].get(name)
    ]
    if faulty["hyperparameters"] != ordinary["hyperparameters"]:
        different.append("hyperparameters")
    if different:
        raise UserError(
            f"{pair.faulty.path} and {pair.ordinary.path} differ in more than the fault: {', '.join(different)}. "
            "Train and evaluate both again."
        )


def _common_settings(runs: Sequence[Run]) -> FederationConfig:
    """Return the section `federation` that the runs share; raise `UserError` if they differ."""
    written = {run.path: run.config.get("profile_config", {}).get("federation", {}) for run in runs}
    sections = {
        path: restored(FederationConfig, f"{path / 'config.json'}: field profile_config.federation", section)
        for path, section in written.items()
    }
    first = next(iter(sections))
    for path, section in sections.items():
        if section != sections[first]:
            raise UserError(
                f"{first} and {path}: their `federation` settings differ. Train both again with the same file."
            )
    return sections[first]
