"""Run folders, and checked access to the files in them that reports read."""

from pathlib import Path
from types import NoneType
from typing import Any

from pilot.errors import UserError
from pilot.io.atomic import FieldType, damaged, read_json, read_jsonl
from pilot.io.layout import METRICS, PER_EXAMPLE, SAMPLES, existing_scenario_folder
from pilot.io.verified import check_digest, check_note

SAMPLE_FIELDS = {"protocol": str, "task": str, "id": str, "clients": list, "prediction": str, "references": list}
"""Fields that reports read from the rows of `eval/samples.jsonl`."""
PER_EXAMPLE_FIELDS: dict[str, FieldType] = {
    "task": str, "protocol": str, "metric": str, "client": int, "id": str, "value": (int, float, NoneType)
}  # fmt: skip
"""Fields that reports read from the rows of `eval/per_example.jsonl`."""
DIGEST_FIELDS = {"samples_digest": SAMPLES, "per_example_digest": PER_EXAMPLE}
"""Field of an evaluation's `metrics.json` -> the file whose digest it holds."""
MANIFEST_FILES = {"config.json", "ledger.json", "privacy.json", "rounds.jsonl"}
"""Files of a run that reports read and whose digests are in its manifest."""


def discover(path: Path) -> list[Path]:
    """Find the run folders (`seed*`, or anything with a `config.json`) under `path`, sorted.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    existing_scenario_folder(path)
    if (path / "config.json").exists() or path.name.startswith("seed"):
        return [path]
    for pattern in ("runs/*/seed*", "*/seed*", "seed*", "*/runs/*/seed*", "*/*/runs/*/seed*"):
        if found := sorted(folder for folder in path.glob(pattern) if folder.is_dir()):
            return found
    raise UserError(
        f"{path}: no runs here (looked for runs/<method>/seed<k>). Train some first: "
        "pilot-bench train --scenario S --method M --seed K, or snakemake --cores all scenario2."
    )


def check_files(folder: Path) -> None:
    """Check the digests of a run's files against its manifest, except checkpoints and evaluations.

    Raises:
        UserError: a file is damaged or is not the recorded one.
    """
    files = read_json(folder / "manifest.json", {"files": dict})["files"]
    if not files:
        raise damaged(folder / "manifest.json", "field files: expected the run's files, got none")
    for name in MANIFEST_FILES & files.keys():
        check_digest(folder / name, files[name])


def check_evaluation(folder: Path) -> None:
    """Check an evaluation's metrics against their note, and its files against the metrics; raises as `check_files`."""
    check_note(folder / METRICS)
    scored = read_json(folder / METRICS, dict.fromkeys(DIGEST_FIELDS, str))
    for field, name in DIGEST_FIELDS.items():
        if (path := folder / name).exists():
            check_digest(path, scored[field])


def has_answers(run_dir: Path) -> bool:
    """Return whether a run has its answers; one that was unpacked may have scores alone."""
    return (run_dir / "eval" / "samples.jsonl").exists()


def read_samples(run_dir: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's `eval/samples.jsonl`.

    Raises:
        UserError: it is missing, damaged or empty.
    """
    rows = read_jsonl(path := run_dir / "eval" / "samples.jsonl", SAMPLE_FIELDS)
    if not rows:
        raise damaged(path, "no answers")
    return rows


def read_run_file(path: Path) -> Any:
    """Read a JSON file of a run, or the lines of a `.jsonl` file.

    Raises:
        UserError: it cannot be read.
    """
    return read_jsonl(path, {}) if path.suffix == ".jsonl" else read_json(path, {})
