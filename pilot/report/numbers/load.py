"""Loading of finished runs into frozen dataclasses."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pilot.errors import UserError
from pilot.evaluation.metrics import OFFICIAL, PRIMARY
from pilot.io.atomic import read_json, read_jsonl
from pilot.io.layout import LAST, METRICS, PER_EXAMPLE, evaluation_folder, scenario_folder
from pilot.report.numbers.files import (
    PER_EXAMPLE_FIELDS,
    check_evaluation,
    check_files,
    discover,
    read_run_file,
    read_samples,
)
from pilot.report.numbers.labels import folder_names

TestExamples = dict[str, dict[str, tuple[tuple[str, ...], tuple[float, ...] | None]]]
"""task -> example id -> references and box."""

_FRAME = re.compile(r"\[(\w+)\]$")
PerExample = dict[tuple[str, str, str], dict[int, dict[str, float]]]
"""(task, protocol, metric) -> client -> example id -> value."""


@dataclass(frozen=True)
class Task:
    """One task of a scenario and the clients that have it.

    Attributes:
        ten_references: whether its questions have the ten answers that the official VQA accuracy requires.
        frame: coordinate frame of boxes in answers, part of their metrics' names; empty for other tasks.
    """

    name: str
    kind: str
    clients: tuple[int, ...]
    ten_references: bool = False
    frame: str = ""

    @property
    def metric(self) -> str:
        """Metric of the headline table."""
        if self.kind == "ground":
            return f"{PRIMARY[self.kind]}[{self.frame or 'original'}]"
        return OFFICIAL if self.ten_references else PRIMARY[self.kind]


@dataclass(frozen=True)
class Entry:
    """One entry of `eval/metrics.json`: a metric of one client's model; `value` is None if unavailable."""

    task: str
    kind: str
    protocol: str
    client: int
    metric: str
    value: float | None
    status: str
    reason: str
    num_examples: int


@dataclass(frozen=True)
class Run:
    """One complete run directory with one of its evaluations, by default that of the models of the last round.

    `label` is the method, with a suffix if that alone is ambiguous.
    """

    path: Path
    scenario: str
    method: str
    label: str
    seed: int
    reference: bool
    config: dict[str, Any]
    tasks: tuple[Task, ...]
    entries: tuple[Entry, ...]
    test_digest: str
    ledger: dict[str, Any]
    timing: dict[str, float]
    evaluation: str = LAST

    @property
    def imported(self) -> tuple[str, ...]:
        """Formats that the answers were imported from; empty for runs that were not imported."""
        return tuple(sorted({source["format"] for source in self.config.get("imported", {}).values()}))

    @property
    def scenario_dir(self) -> Path:
        """Folder with the `data/`, `partition/` and `runs/` of this run."""
        return scenario_folder(self.path)

    @cached_property
    def per_example(self) -> PerExample:
        """Scores per example (read on first use); empty if no metric has any."""
        scores: PerExample = defaultdict(lambda: defaultdict(dict))
        path = evaluation_folder(self.path, self.evaluation) / PER_EXAMPLE
        if path.exists():
            for row in read_jsonl(path, PER_EXAMPLE_FIELDS):
                if row["value"] is not None:
                    key = (row["task"], row["protocol"], row["metric"])
                    scores[key][row["client"]][row["id"]] = float(row["value"])
        return {key: dict(clients) for key, clients in scores.items()}

    @cached_property
    def test_examples(self) -> TestExamples:
        """Test examples that were answered, by task (read on first use)."""
        found: TestExamples = defaultdict(dict)
        for row in read_samples(self.path):
            if row["protocol"] == "personalised":
                box = None if row.get("box") is None else tuple(row["box"])
                found[row["task"]][row["id"]] = tuple(row["references"]), box
        return dict(found)

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        """Lines of `rounds.jsonl`; empty for a reference that was not trained."""
        path = self.path / "rounds.jsonl"
        return list(read_run_file(path)) if path.exists() else []

    def at(self, evaluation: str) -> "Run | None":
        """Return the run with another of its evaluations; None if it has not got that one.

        Raises:
            UserError: a file of the evaluation is damaged.
        """
        folder = evaluation_folder(self.path, evaluation)
        if not (folder / METRICS).is_file():
            return None
        entries, test_digest = _read_evaluation(folder)
        return replace(self, evaluation=evaluation, entries=entries, test_digest=test_digest)


def load_runs(paths: Sequence[Path | str]) -> list[Run]:
    """Load every run under scenario folders, method folders or run folders, sorted by scenario, method and seed.

    Raises:
        UserError: a path contains no run, a run is unfinished, unevaluated or unreadable, or runs of one folder are
            not seeds of one method.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        for folder in discover(Path(path)):
            folders.setdefault(folder.resolve(), folder)
    runs = _share_ten_references(_disambiguate([load_run(folder) for folder in folders.values()]))
    return sorted(runs, key=lambda run: (run.scenario, run.label, run.seed, str(run.path)))


def load_methods(scenario_dir: Path, methods: Sequence[str] | None = None) -> list[Run]:
    """Load the runs of the given methods in a scenario's folder, by default of all; other runs may be unfinished.

    Raises:
        UserError: as `load_runs`, or a method has no runs.
    """
    if methods is None:
        return load_runs([scenario_dir])
    known = sorted(path.name for path in (scenario_dir / "runs").glob("*") if path.is_dir())
    if unknown := [name for name in methods if name not in known]:
        raise UserError(f"unknown method {', '.join(unknown)}. Expected some of: {', '.join(known) or 'none'}.")
    return load_runs([scenario_dir / "runs" / name for name in methods])


def load_run(folder: Path) -> Run:
    """Load the run in `folder`.

    Raises:
        UserError: a file or field is missing; the message names it and says what to do.
    """
    if not (folder / "manifest.json").exists():
        finish = "pilot-bench train ... --resume (or run snakemake again)"
        finish = "pilot-bench import ..." if (folder / "imported").is_dir() else finish
        raise UserError(
            f"{folder}: this run is not complete (manifest.json is missing). Finish it with {finish}, "
            "or remove the folder."
        )
    if not (folder / "eval" / "metrics.json").exists():
        raise UserError(
            f"{folder}: this run is not evaluated (eval/metrics.json is missing). Run: pilot-bench evaluate {folder}"
        )
    try:
        return _read_run(folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder}: config.json or eval/metrics.json: field {error} is missing or invalid. "
            "It was written by another version or by hand; remove the folder and run it again."
        ) from error


def _read_run(folder: Path) -> Run:
    check_files(folder)
    config = read_run_file(folder / "config.json")
    entries, test_digest = _read_evaluation(evaluation_folder(folder))
    reference = bool(config.get("reference", False))
    config["hyperparameters"] = dict(config.get("hyperparameters") or {})
    config["budget"] = dict(config.get("budget") or {}) if reference else dict(config["budget"])
    config["digests"] = dict(config["digests"])
    official = {entry.task for entry in entries if entry.metric == OFFICIAL}
    timing, ledger = folder / "timing.json", folder / "ledger.json"
    if not reference and not ledger.exists():
        raise UserError(f"{folder}: ledger.json is missing. Remove the folder and run it again.")
    return Run(
        path=folder,
        scenario=config["scenario"],
        method=config["method"],
        label=_method_label(folder, config["method"]),
        seed=int(config["seed"]),
        reference=reference,
        config=config,
        tasks=tuple(
            Task(each["name"], each["kind"], tuple(each["clients"]), each["name"] in official, _frame(each, entries))
            for each in config["tasks"]
        ),
        entries=entries,
        test_digest=test_digest,
        ledger=read_run_file(ledger) if ledger.exists() else {},
        timing=read_run_file(timing) if timing.exists() else {},
    )


def _read_evaluation(folder: Path) -> tuple[tuple[Entry, ...], str]:
    """Return the entries of an evaluation's metrics and the digest of its test examples."""
    check_evaluation(folder)
    metrics = read_json(folder / METRICS, {"entries": list, "test_digest": str})
    names = [field.name for field in fields(Entry)]
    return tuple(Entry(**{name: entry[name] for name in names}) for entry in metrics["entries"]), metrics["test_digest"]


def _frame(task: dict[str, Any], entries: Sequence[Entry]) -> str:
    """Return the frame of a task's boxes: that of the run's answers, or the first scored one if that was not scored."""
    if task["kind"] != "ground":
        return ""
    names = [_FRAME.search(entry.metric) for entry in entries if entry.task == task["name"]]
    scored = sorted({match[1] for match in names if match})
    own = str(task.get("frame", "original"))
    return own if own in scored or not scored else scored[0]


def _share_ten_references(runs: list[Run]) -> list[Run]:
    """Set `ten_references` in all runs of a scenario: a run without answers has no metric to derive it from."""
    official = {(run.scenario, task.name) for run in runs for task in run.tasks if task.ten_references}
    return [
        replace(run, tasks=tuple(replace(t, ten_references=(run.scenario, t.name) in official) for t in run.tasks))
        for run in runs
    ]


def _method_label(folder: Path, method: str) -> str:
    """Return the method's name, suffixed with the fault if any."""
    holder = folder.resolve().parents[2]
    return method if scenario_folder(folder) == holder else f"{method} [{holder.name}]"


def _disambiguate(runs: list[Run]) -> list[Run]:
    """Suffix the labels of a method's runs if a seed occurs twice or their hyperparameters differ."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.scenario, run.method].append(run)
    labelled = []
    for (_, method), group in groups.items():
        names = folder_names(method, [(run.path, run.seed, run.config["hyperparameters"]) for run in group])
        labelled += [
            replace(run, label=f"{method} [{name}]") if name else run for run, name in zip(group, names, strict=True)
        ]
    return labelled
