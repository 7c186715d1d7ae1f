"""Where a scenario's folder keeps its runs: `runs/`, and below `faults/<fault>/runs/` those with a fault."""

from pathlib import Path

FAULTS = "faults"


def run_folder(scenario_dir: Path, method: str, seed: int, fault: str | None = None) -> Path:
    """The folder of a run, in `scenario_dir` or below it in that of its fault."""
    holder = scenario_dir / FAULTS / fault if fault else scenario_dir
    return holder / "runs" / method / f"seed{seed}"


def scenario_folder(run_dir: Path) -> Path:
    """The folder with the data that a run reads, absolute: the inverse of `run_folder`.

    It is three levels above a run, or five if there are no data and the run lies below `faults/`.
    """
    run = run_dir.resolve()
    holder = run.parents[2]
    below_faults = holder.parent.name == FAULTS and not (holder / "data").is_dir()
    return holder.parents[1] if below_faults else holder
