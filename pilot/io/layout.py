"""Layout of a scenario's folder: runs are in `runs/`, and those with a fault in `faults/<fault>/runs/`."""

from pathlib import Path

FAULTS = "faults"
KEPT_ROUNDS = 2
"""Checkpoints of a run that the server and each client keep on disk."""


def setting_folder(results: Path, profile: str, scenario: str) -> Path:
    """Return the folder of a scenario's data and runs with a profile."""
    return results / profile / scenario


def run_folder(scenario_dir: Path, method: str, seed: int, fault: str | None = None) -> Path:
    """Return the folder of a run, below `scenario_dir` or, with a fault, below the fault's folder in it."""
    holder = scenario_dir / FAULTS / fault if fault else scenario_dir
    return holder / "runs" / method / f"seed{seed}"


def scenario_folder(run_dir: Path) -> Path:
    """Return the absolute path of the folder with a run's data: the inverse of `run_folder`.

    It is three levels above a run, or five if there are no data and the run is below `faults/`.
    """
    run = run_dir.resolve()
    holder = run.parents[2]
    below_faults = holder.parent.name == FAULTS and not (holder / "data").is_dir()
    return holder.parents[1] if below_faults else holder
