"""Layout of a scenario's folder: runs are in `runs/`, and those with a fault in `faults/<fault>/runs/`."""

from pathlib import Path

from pilot.errors import UserError

FAULTS = "faults"
EVAL = "eval"
"""Subfolder of a run with its evaluations."""
AUDIT, PRIVACY = "audit", "privacy"
"""Subfolder of a run with what attacks on its messages found, and of a scenario with their tables and figure."""
LAST, CROSS_TASK, POST_FIT = "", "cross-task", "post-fit"
"""Names of evaluations of the last round's models: on the clients' own tasks, on the others, after local steps."""
NEWCOMERS, NEWCOMERS_FIT, QUESTIONS = "unseen-clients", "unseen-clients-fit", "unseen-questions"
"""Of models of clients that took no part: as received, after their own steps; of all models on unseen questions."""
CONDITION = "condition-"
"""Beginning of the names of evaluations on test images under the imaging conditions of some client."""
FORGETTING, FORGETTING_LM_EVAL = "forgetting", "forgetting-lm-eval"
"""Of all models on what the backbone could do before: its public corpus, or tasks of lm-eval."""
SAMPLES, PER_EXAMPLE, METRICS = "samples.jsonl", "per_example.jsonl", "metrics.json"
"""Files of an evaluation: answers, scores by example, and metrics."""
IMAGES = "images.json"
"""File of a scenario's folder that was unpacked: task -> example id -> its image, by numbers, in the digests' order."""
KEPT_ROUNDS = 2
"""Last checkpoints of a run that the server and each client keep on disk, besides those of evaluated rounds."""


def setting_folder(results: Path, profile: str, scenario: str) -> Path:
    """Return the folder of a scenario's data and runs with a profile."""
    return results / profile / scenario


def existing_scenario_folder(path: Path) -> Path:
    """Return a scenario's folder.

    Raises:
        UserError: there is no such folder.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder. Expected a scenario folder such as results/embedded/scenario2.")
    return path


def run_folder(scenario_dir: Path, method: str, seed: int, fault: str | None = None) -> Path:
    """Return the folder of a run, below `scenario_dir` or, with a fault, below the fault's folder in it."""
    holder = scenario_dir / FAULTS / fault if fault else scenario_dir
    return holder / "runs" / method / f"seed{seed}"


def evaluation_folder(run_dir: Path, name: str = LAST) -> Path:
    """Return the folder with the answers and scores of an evaluation: of the last round's models, by default."""
    return run_dir / EVAL / name


def round_evaluation(number: int) -> str:
    """Return the name of the evaluation of an earlier round's models."""
    return f"round-{number}"


def condition_evaluation(place: int) -> str:
    """Return the name of the evaluation on test images under the conditions at a place of the scenario's field."""
    return f"{CONDITION}{place + 1}"


def evaluations(run_dir: Path, file: str) -> list[str]:
    """Return the names of a run's evaluations that have `file`: that of the last round first, others sorted."""
    return [
        name for name in (LAST, *sorted(path.name for path in (run_dir / EVAL).glob("*") if path.is_dir()))
        if (evaluation_folder(run_dir, name) / file).is_file()
    ]  # fmt: skip


def scenario_folder(run_dir: Path) -> Path:
    """Return the absolute path of the folder with a run's data: the inverse of `run_folder`.

    It is three levels above a run, or five if there are no data and the run is below `faults/`.
    """
    run = run_dir.resolve()
    holder = run.parents[2]
    below_faults = holder.parent.name == FAULTS and not (holder / "data").is_dir()
    return holder.parents[1] if below_faults else holder
