"""Training and answering by names, as the command line asks for it; `majority` needs neither model nor training."""

from collections.abc import Callable
from pathlib import Path

from pilot.config import Profile, Scenario, load_profile, load_scenario
from pilot.errors import UserError
from pilot.io.atomic import read_json

MAJORITY = "majority"
Advance = Callable[[int, int], None]


def train_method(
    scenario: str, profile: str, method: str, seed: int, results: Path, resume: bool, progress: Advance
) -> Path:
    """Train one run; returns its folder.

    Raises:
        UserError: an unknown name, or data, partition or features that are missing.
    """
    loaded, sizes = load_scenario(scenario), load_profile(profile)
    scenario_dir = results / sizes.name / loaded.name
    run_dir = scenario_dir / "runs" / method / f"seed{seed}"
    _require(scenario_dir, loaded, sizes)
    from pilot.federation.training import RunSpec, train_run
    from pilot.methods.registry import METHODS

    if method == MAJORITY:
        from pilot.evaluation.majority import write_majority_run

        write_majority_run(RunSpec(loaded, sizes, method, seed), scenario_dir, run_dir)
        return run_dir
    if method not in METHODS:
        raise UserError(f"--method {method}: unknown name. Expected one of: {', '.join([*METHODS, MAJORITY])}.")
    train_run(RunSpec(loaded, sizes, method, seed), scenario_dir, run_dir, resume, progress)
    return run_dir


def answer(run_dir: Path, progress: Advance) -> None:
    """Write `eval/samples.jsonl` of a finished run."""
    config = run_dir / "config.json"
    if config.is_file() and read_json(config)["method"] == MAJORITY:
        from pilot.evaluation.majority import answer_majority

        answer_majority(run_dir)
        return
    from pilot.evaluation.answers import answer_run

    answer_run(run_dir, progress)


def _require(scenario_dir: Path, scenario: Scenario, profile: Profile) -> None:
    """Data, partition and features must be there."""
    steps = {
        "data/manifest.json": "data build",
        "partition/heterogeneity.json": "partition",
        "features/index.json": "backbone features",
    }
    for name, command in steps.items():
        if not (scenario_dir / name).is_file():
            raise UserError(
                f"{scenario_dir / name}: missing. Run `pilot-bench {command} --scenario {scenario.name} "
                f"--profile {profile.name}` first, or `snakemake --cores all {scenario.name}` for everything."
            )
