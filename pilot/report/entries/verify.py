"""Checks of an entry as a maintainer makes them; each reports what is wrong, and the next ones go on if they can."""

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pilot.config.files import validated
from pilot.config.load import load_scenario
from pilot.errors import UserError
from pilot.evaluation.result import OK
from pilot.evaluation.scoring import score_runs
from pilot.io.atomic import read_json, read_jsonl
from pilot.io.digest import sha256_bytes
from pilot.io.layout import EVAL, METRICS, PER_EXAMPLE, SAMPLES, evaluation_folder
from pilot.report.entries.rules import MAX_TRIALS, reference_of, static_problems, steps_problem
from pilot.report.entries.submit import DESCRIPTION, FORMAT, MAIN, TUNING, Entry, main_table
from pilot.report.numbers.files import PER_EXAMPLE_FIELDS
from pilot.report.numbers.load import Run, load_runs
from pilot.report.pack import read_pack, unpack_runs

TOLERANCE = 1e-6
"""Largest difference of a score computed again; scores are written with six decimals."""


@dataclass(frozen=True)
class Check:
    """A check's name and what it found, nothing if all is well."""

    name: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """An entry and its checks; `table` is its `main.csv`, and `tuned` says whether its tuning trials are in it."""

    entry: Entry
    checks: tuple[Check, ...]
    table: str
    tuned: bool

    @property
    def problems(self) -> list[str]:
        """All problems, with the names of their checks."""
        return [f"{check.name}: {problem}" for check in self.checks for problem in check.problems]


def verify_entry(file: Path, version: str) -> Verified:
    """Check an entry of this version.

    Raises:
        UserError: the file is no entry, or is one of another format or version, so that nothing can be checked.
    """
    members = read_pack(file)
    if DESCRIPTION not in members:
        raise UserError(f"{file}: {DESCRIPTION} is missing. Write entries with `pilot-bench submit`.")
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "entry.json").write_bytes(members[DESCRIPTION])
        entry = validated(Entry, f"{file}: {DESCRIPTION}", read_json(folder / "entry.json", {}))
        for field, given, own in (("format", entry.format, FORMAT), ("version", entry.version, version)):
            if given != own:
                raise UserError(f"{file}: {DESCRIPTION}: field {field}: expected {own}, as here, got {given}.")
        checks = [Check("files", tuple(_file_problems(members, entry)))]
        try:
            unpack_runs(file, folder / "results")
            setting = folder / "results" / entry.profile / entry.scenario
            runs = load_runs([setting])
        except UserError as error:
            return Verified(entry, (*checks, Check("runs", (_short(str(error), folder),))), "", TUNING in members)
        found: list[tuple[str, Callable[[], Iterator[str]]]] = [
            ("runs", lambda: _run_problems(runs, entry)),
            ("settings", lambda: _setting_problems(runs)),
            ("tests", lambda: _test_problems(runs, entry)),
            ("scores", lambda: _score_problems(runs, folder / "again")),
            ("table", lambda: _table_problems(runs, members.get(MAIN))),
            ("tuning", lambda: _tuning_problems(runs, members, folder)),
        ]
        checks += [Check(name, tuple(_collected(problems, folder))) for name, problems in found]
    return Verified(entry, tuple(checks), members.get(MAIN, b"").decode(), TUNING in members)


def _collected(problems: Callable[[], Iterator[str]], folder: Path) -> Iterator[str]:
    try:
        yield from (_short(problem, folder) for problem in problems())
    except UserError as error:
        yield _short(str(error), folder)


def _short(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/results/", "").replace(f"{folder}/again/", "")


def _file_problems(members: dict[str, bytes], entry: Entry) -> Iterator[str]:
    for name in sorted(entry.files.keys() | members.keys() - {DESCRIPTION}):
        if name not in members:
            yield f"{name}: missing"
        elif name not in entry.files:
            yield f"{name}: not listed in {DESCRIPTION}"
        elif sha256_bytes(members[name]) != entry.files[name]:
            yield f"{name}: sha256 differs from the one in {DESCRIPTION}"


def _run_problems(runs: Sequence[Run], entry: Entry) -> Iterator[str]:
    expected = load_scenario(entry.scenario).seeds
    for run in runs:
        if (run.method, run.scenario) != (entry.method, entry.scenario):
            yield f"{run.path}: a run of {run.method} on {run.scenario}, expected {entry.method} on {entry.scenario}"
        if not (evaluation_folder(run.path) / SAMPLES).is_file():
            yield f"{run.path / EVAL / SAMPLES}: missing"
    seeds = sorted(run.seed for run in runs)
    if seeds != sorted(entry.seeds):
        yield f"seeds: {', '.join(map(str, seeds))}, expected {', '.join(map(str, entry.seeds))} as in {DESCRIPTION}"
    if missing := set(expected) - set(seeds):
        yield f"seeds: {', '.join(map(str, sorted(missing)))} of the scenario's {len(expected)} are missing"


def _setting_problems(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        yield from (f"{run.path}/config.json: {problem}" for problem in static_problems(run.config))
        if problem := steps_problem(run.config, run.rounds):
            yield f"{run.path}: {problem}"
    chosen = [(run.config["hyperparameters"], run.config["digests"]["source"]) for run in runs]
    if any(other != chosen[0] for other in chosen):
        yield "hyperparameters and source: expected the same for all seeds"


def _test_problems(runs: Sequence[Run], entry: Entry) -> Iterator[str]:
    expected = reference_of(f"{entry.profile}/{entry.scenario}").test
    for run in runs:
        if run.test_digest != expected:
            yield f"{run.path}: its answers are to other questions, or have other references, than the reference's"


def _score_problems(runs: Sequence[Run], folder: Path) -> Iterator[str]:
    """Score the answers again and compare; metrics whose tool is missing here are not compared."""
    again = [folder / str(run.seed) for run in runs]
    for run, target in zip(runs, again, strict=True):
        (target / EVAL).mkdir(parents=True)
        shutil.copyfile(evaluation_folder(run.path) / SAMPLES, target / EVAL / SAMPLES)
    score_runs(again)
    for run, target in zip(runs, again, strict=True):
        given, computed = (
            {
                (e["task"], e["protocol"], e["client"], e["metric"]): (e["value"], e["status"])
                for e in read_json(evaluation_folder(path) / METRICS, {"entries": list})["entries"]
            }
            for path in (run.path, target)
        )
        if given.keys() != computed.keys():
            yield f"{run.path}: {METRICS} has other metrics than the answers give"
        for key in sorted(given.keys() & computed.keys()):
            (value, _), (own, status) = given[key], computed[key]
            differs = value is None or own is None or abs(value - own) > TOLERANCE
            if status == OK and differs:
                task, protocol, client, metric = key
                yield f"{run.path}: {metric} of client {client} on {task} ({protocol}): answers give {own}, got {value}"
        measured = {metric for (*_, metric), (_, status) in computed.items() if status == OK}
        if _scores(run.path, measured) != _scores(target, measured):
            yield f"{run.path}: {PER_EXAMPLE} is not what the answers give"


def _scores(run_dir: Path, metrics: Collection[str]) -> list[dict[str, Any]]:
    rows = read_jsonl(evaluation_folder(run_dir) / PER_EXAMPLE, PER_EXAMPLE_FIELDS)
    return [row for row in rows if row["metric"] in metrics]


def _table_problems(runs: Sequence[Run], table: bytes | None) -> Iterator[str]:
    if table != main_table(runs):
        yield f"{MAIN}: not what the runs give"


def _tuning_problems(runs: Sequence[Run], members: dict[str, bytes], folder: Path) -> Iterator[str]:
    if TUNING not in members:
        return
    (folder / "tuning.json").write_bytes(members[TUNING])
    trials = read_json(folder / "tuning.json", {"trials": list})["trials"]
    if len(trials) > MAX_TRIALS:
        yield f"{TUNING}: {len(trials)} trials, expected at most {MAX_TRIALS}"
    best = min(trials, key=lambda trial: trial["validation_loss"])
    used = runs[0].config["hyperparameters"]["learning_rates"]
    if any(best["learning_rates"].get(name) != used.get(name) for name in ("text_adapter", "connector")):
        yield f"{TUNING}: the best trial's learning rates are not those of the runs"
