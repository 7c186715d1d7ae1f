"""Provenance of the page's numbers, and the commands to reproduce them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pilot.io.digest import sha256_file
from pilot.report.numbers.files import read_run_file
from pilot.report.numbers.load import Run
from pilot.report.plots.style import Source

_SHORT = 12


def provenance(source: Source) -> dict[str, Any]:
    """Collect versions, digests, budgets, the table files with digests, a command for each step, and a line per run."""
    runs = list(source.runs)
    manifests = [read_run_file(run.path / "manifest.json") for run in runs]
    versions: dict[str, set[str]] = {}
    for manifest in manifests:
        for name, version in (manifest.get("versions") or {}).items():
            versions.setdefault(name, set()).add(version)
    return {
        "versions": [[name, ", ".join(sorted(found))] for name, found in sorted(versions.items())],
        "digests": _digests(runs),
        "budget": _budget(runs),
        "tables": _tables(source.scenario_dir),
        "commands": _commands(source),
        "runs": [_run(run, manifest) for run, manifest in zip(runs, manifests, strict=True)],
    }


def _digests(runs: Sequence[Run]) -> list[list[str]]:
    """Return each digest if all runs share it, else the number of different ones (methods have separate sources)."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for name, digest in run.config["digests"].items():
            found.setdefault(name, set()).add(str(digest))
        found.setdefault("test set", set()).add(run.test_digest)
    return [
        [name, next(iter(digests)) if len(digests) == 1 else f"{len(digests)} different ones, see the runs"]
        for name, digests in sorted(found.items())
    ]


def _budget(runs: Sequence[Run]) -> list[list[str]]:
    trained = [run.config["budget"] for run in runs if run.config["budget"]]
    names = list(dict.fromkeys(name for budget in trained for name in budget))
    return [[name, ", ".join(sorted({str(budget.get(name)) for budget in trained}))] for name in names]


def _tables(scenario_dir: Path) -> list[list[str]]:
    files = sorted((scenario_dir / "tables").glob("*.*"))
    return [[f"tables/{path.name}", sha256_file(path)] for path in files if path.name != "timing.csv"]


def _commands(source: Source) -> list[list[str]]:
    """Return the commands that reproduce each result, to be run in the repository's root."""
    config = source.runs[0].config
    scenario, profile = config["scenario"], config["profile"]
    folder = f"results/{profile}/{scenario}"
    method = next((label for label in source.methods if not source.is_reference(label)), source.methods[0])
    option, setting = ("", "") if profile == "embedded" else (f" --profile {profile}", f" --config profile={profile}")
    chosen = " ".join(f"--method {label}" for label in source.methods)
    return [
        ["the scenario's methods, from scratch", f"snakemake --cores all {folder}/report.html{setting}"],
        ["one run", f"pilot-bench train --scenario {scenario}{option} --method {method} --seed 0"],
        ["its answers and scores", f"pilot-bench evaluate {folder}/runs/{method}/seed0"],
        ["the leaderboard in a terminal", f"pilot-bench compare {folder}"],
        ["tables/*", f"pilot-bench tables {folder} {chosen}"],
        ["this page", f"pilot-bench report {folder} {chosen}"],
    ]


def _run(run: Run, manifest: dict[str, Any]) -> dict[str, Any]:
    seconds = run.timing.get("wall_seconds")
    return {
        **{"method": run.label, "seed": run.seed},
        "config": str(manifest.get("config_digest", ""))[:_SHORT],
        "source": str(run.config["digests"].get("source", ""))[:_SHORT],
        "seconds": None if seconds is None else round(seconds, 1),
        "rates": run.config["hyperparameters"].get("learning_rates") or {},
        "options": run.config["hyperparameters"].get("options") or {},
    }
