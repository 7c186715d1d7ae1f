"""Other tools' answers as a run: checked against the test sets and scored like all other runs, without training.

`runs/<name>/seed<k>/` of an imported run holds `imported/<task>.json` (the answers and their source file) and what is
derived from these: `config.json` with `imported` and `reference` set, `eval/`, and `manifest.json`, written last. It
has no ledger, rounds, checkpoint, or answers on the clients' held-out shards: its cost and its scores in the local
protocol are unknown. If the import is interrupted at any point, the same command completes it.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.config.model import Frame
from pilot.data.manifest import check_data
from pilot.data.record import InstructionRecord
from pilot.errors import UserError
from pilot.evaluation.imported.formats import read_answers
from pilot.evaluation.imported.matching import match_answers
from pilot.evaluation.scoring import score_runs
from pilot.io.atomic import read_json, remove, write_json, write_jsonl
from pilot.io.digest import digest_json, sha256_file
from pilot.io.layout import EVAL, SAMPLES, run_folder
from pilot.io.verified import write_noted
from pilot.methods.catalogue import known_methods

SOURCE_FIELDS = {"format": str, "file": str, "sha256": str}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ImportSummary:
    """Summary of an imported run after an import.

    Attributes:
        run_dir: folder of the run.
        num_answers: number of answers by task.
        missing: tasks without answers.
        num_skipped: number of rows of the file that answer other tasks than the requested one.
    """

    run_dir: Path
    num_answers: Mapping[str, int]
    missing: tuple[str, ...]
    num_skipped: int = 0

    def __str__(self) -> str:
        """Return the last line that the command prints."""
        counts = ", ".join(f"{task} ({count} answers)" for task, count in self.num_answers.items())
        skipped = f"; {self.num_skipped} rows of other tasks skipped" if self.num_skipped else ""
        lacking = f"; without {', '.join(self.missing)}" if self.missing else ""
        return f"{self.run_dir}: {counts}{skipped}{lacking}"


def import_answers(
    file: Path,
    format: str,
    name: str,
    scenario_dir: Path,
    task: str | None = None,
    seed: int = 0,
    replace: bool = False,
    frame: Frame | None = None,
) -> ImportSummary:
    """Add the answers in `file` to the imported run `name`, and score all its answers.

    Args:
        file: another tool's per-sample file.
        format: one of `formats.FORMATS`.
        name: name of the run in tables; not a method's name.
        scenario_dir: `results/<profile>/<scenario>`, with its data and at least one trained run.
        task: the task that was answered; by default, found from the file's `task` fields or its ids.
        seed: number of the imported run, to tell several of the same name apart.
        replace: whether to replace answers to the same task imported from another file.
        frame: frame of the boxes in the answers; by default, that of the folder's trained runs.

    Raises:
        UserError: the file cannot be read, its examples are not the test set of the task (the message gives how many
            differ, and the first ids), or the name is taken; nothing is written.
    """
    from pilot.evaluation.sets import read_test_set

    scenario = _in_frame(_read_scenario(scenario_dir), frame)
    run_dir = run_folder(scenario_dir, name, seed)
    _check_name(name, run_dir.parent)
    tests = {
        each["name"]: read_test_set(scenario_dir, each["name"], each.get("frame", "original"))
        for each in scenario["tasks"]
    }
    source = {"format": format, "file": file.name}
    answers = read_answers(file, format)
    matched = match_answers(file, answers, tests, task)
    num_skipped = len(answers) - sum(map(len, matched.values()))
    source["sha256"] = sha256_file(file)
    for found in matched:
        _check_overwrite(run_dir / "imported" / f"{found}.json", source, replace)
    remove(run_dir / "manifest.json")
    for found, by_id in matched.items():
        write_json(run_dir / "imported" / f"{found}.json", source | {"answers": by_id})
    return dataclasses.replace(
        _write_run(run_dir, scenario | {"method": name, "seed": seed}, tests), num_skipped=num_skipped
    )


def refuse_imported(run_dirs: Sequence[Path]) -> None:
    """Refuse to generate answers with imported runs, which have no model.

    Raises:
        UserError: one of the runs was imported.
    """
    for run_dir in run_dirs:
        if (run_dir / "imported").is_dir():
            raise UserError(
                f"{run_dir}: this run was imported and has no model. Score its answers again with "
                f"pilot-bench evaluate --no-answers {run_dir}, or import others."
            )


def _read_scenario(scenario_dir: Path) -> dict[str, Any]:
    """Return the config fields that imported runs share with trained ones; check that the data are the same."""
    configs = sorted(scenario_dir.glob("runs/*/seed*/config.json"))
    trained = [path for path in configs if not (path.parent / "imported").is_dir()]
    if not trained:
        raise UserError(
            f"{scenario_dir}: no trained run (looked for runs/<method>/seed<k>/config.json). Name a scenario folder "
            "such as results/embedded/scenario2, and train a method first, for example `majority`."
        )
    config = read_json(trained[0], {"scenario": str, "profile": str, "tasks": list, "digests": dict})
    manifest = scenario_dir / "data" / "manifest.json"
    if not manifest.is_file():
        raise UserError(f"{manifest}: missing. Build the scenario's data first: pilot-bench data build.")
    digest = digest_json(check_data(scenario_dir / "data"))
    if digest != config["digests"]["data"]:
        raise UserError(
            f"{scenario_dir / 'data'}: not the data of {trained[0].parent}. Train again with these data, or build "
            "the data of that run again."
        )
    shared = {key: config[key] for key in ("scenario", "profile", "tasks")}
    return shared | {"digests": {"data": digest}, "hyperparameters": {}, "budget": {}, "reference": True}


def _in_frame(scenario: dict[str, Any], frame: Frame | None) -> dict[str, Any]:
    """Return the scenario with boxes in `frame`; None keeps the frame of its trained runs."""
    if frame is None:
        return scenario
    own = {} if frame == "original" else {"frame": frame}
    plain = [{key: value for key, value in task.items() if key != "frame"} for task in scenario["tasks"]]
    return scenario | {"tasks": [task | own if task["kind"] == "ground" else task for task in plain]}


def _check_name(name: str, folder: Path) -> None:
    if not _NAME.fullmatch(name):
        raise UserError(f"--as {name!r}: expected letters, digits, dots, underscores and hyphens, such as llava-next.")
    if name.lower() in known_methods():
        raise UserError(
            f"--as {name}: this is the name of a method of the suite. Choose another, such as {name}-import."
        )
    if own := [path for path in sorted(folder.glob("seed*")) if not (path / "imported").is_dir()]:
        raise UserError(f"--as {name}: {own[0]} was trained, not imported. Choose another name.")


def _check_overwrite(path: Path, source: Mapping[str, str], replace: bool) -> None:
    """Refuse to overwrite answers that were imported from another file, unless `replace` is set."""
    if replace or not path.is_file():
        return
    old = read_json(path, SOURCE_FIELDS)
    if old["sha256"] != source["sha256"]:
        raise UserError(
            f"{path}: already has answers of another file ({old['file']}, {old['format']}). Pass --replace to "
            "replace them, or choose another name (--as) or --seed."
        )


def _write_run(
    run_dir: Path, config: Mapping[str, Any], tests: Mapping[str, Sequence[InstructionRecord]]
) -> ImportSummary:
    """Write everything in the run that is derived from `imported/`, the manifest last."""
    from pilot.evaluation.answers import sample_rows

    rows, sources, counts = [], {}, {}
    for task in config["tasks"]:
        path = run_dir / "imported" / f"{task['name']}.json"
        if not path.is_file():
            continue
        source = read_json(path, SOURCE_FIELDS | {"answers": dict})
        answers, test = source.pop("answers"), tests[task["name"]]
        if answers.keys() != {record.id for record in test}:
            raise UserError(f"{path}: imported for data with other ids. Remove {run_dir} and import again.")
        rows += sample_rows(task["name"], test, {client: [] for client in task["clients"]}, answers)
        sources[task["name"]], counts[task["name"]] = source, len(answers)
    complete = dict(config) | {"imported": sources}
    write_json(run_dir / "config.json", complete)
    write_noted(run_dir / EVAL / SAMPLES, lambda path: write_jsonl(path, rows))
    score_runs([run_dir])
    files = [run_dir / "config.json", *sorted((run_dir / "imported").glob("*.json"))]
    digests = {path.relative_to(run_dir).as_posix(): sha256_file(path) for path in files}
    write_json(run_dir / "manifest.json", {"config_digest": digest_json(complete), "files": digests})
    return ImportSummary(run_dir, counts, tuple(task["name"] for task in config["tasks"] if task["name"] not in counts))
