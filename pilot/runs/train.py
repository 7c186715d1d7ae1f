"""Training of runs given by name, as on the command line."""

from collections.abc import Callable
from pathlib import Path

from pilot.config.fault import load_fault
from pilot.config.files import check_known
from pilot.config.load import load_profile, load_scenario
from pilot.config.profile import Profile
from pilot.config.scenario import Scenario
from pilot.config.variant import check_methods
from pilot.errors import UserError
from pilot.evaluation.tasks import task_names
from pilot.io.layout import run_folder
from pilot.provenance import known_methods

Advance = Callable[[int, int], None]


def train_method(
    scenario: str,
    profile: str,
    method: str,
    seed: int,
    results: Path,
    resume: bool,
    progress: Advance,
    engine: str = "local",
    fault: str | None = None,
    client_cpus: float = 1.0,
    client_gpus: float = 0.0,
    replace: bool = False,
) -> Path:
    """Train one run and return its folder.

    Args:
        scenario: name or file, as are `profile` and `fault`.
        profile: sets the size of everything.
        method: see `pilot-bench list methods`.
        seed: seed of the run.
        results: the folder of all results.
        resume: continue from the last finished round.
        progress: called with optimiser steps done and in total.
        engine: `local` (this process) or `flower` (its simulation on Ray).
        fault: its section `federation` replaces the profile's, and the run is written below `faults/`.
        client_cpus: cores of each client in Flower's simulation.
        client_gpus: GPUs of each client in Flower's simulation; fractions are allowed.
        replace: with `resume`, rename the folder of a run with other settings or source instead of refusing.

    Raises:
        UserError: an unknown name, a fault that does not fit, or data, partition or features that are missing.
    """
    if replace and not resume:
        raise UserError("--replace-changed, --no-resume: one keeps what is there, the other discards it. Give one.")
    loaded, sizes, scenario_dir = load_run_inputs(scenario, profile, method, results)
    run_dir = run_folder(scenario_dir, method, seed)
    if fault:
        sizes, name = _with_fault(fault, loaded, sizes, method)
        run_dir = run_folder(scenario_dir, method, seed, name)
    from pilot.federation.spec import RunSpec
    from pilot.federation.training import train_run

    spec = RunSpec(loaded, sizes, method, seed)
    if engine != "flower" and (client_cpus, client_gpus) != (1.0, 0.0):
        raise UserError("--client-cpus, --client-gpus: are for --engine flower; in this process clients come in turn.")
    if engine == "flower" and spec.make_method().phases(1):
        from pilot.federation.flower.server import ClientResources, simulate_run

        each = ClientResources(client_cpus, client_gpus)
        simulate_run(spec, scenario_dir, run_dir, resume, progress, each=each, replace=replace)
    else:
        train_run(spec, scenario_dir, run_dir, resume, progress, replace)
    return run_dir


def _with_fault(fault: str, scenario: Scenario, profile: Profile, method: str) -> tuple[Profile, str]:
    """Return the profile with the fault's section `federation`, and the fault's name."""
    from pilot.federation.spec import configured

    loaded, num_clients = load_fault(fault), len(scenario.client_tasks)
    if not configured(profile, method).phases(1):
        raise UserError(f"--fault {fault}: {method} has no clients that could fail. Choose a method that trains.")
    for number, attack in enumerate(loaded.federation.attacks):
        if max(attack.clients) >= num_clients:
            raise UserError(
                f"fault {loaded.name}: field federation.attacks.{number}.clients: scenario {scenario.name} has no "
                f"client {max(attack.clients)}, expected numbers in 0..{num_clients - 1}."
            )
    return profile.model_copy(update={"federation": loaded.federation}), loaded.name


def load_run_inputs(scenario: str, profile: str, method: str, results: Path) -> tuple[Scenario, Profile, Path]:
    """Load scenario and profile; check names and required files.

    Returns:
        Scenario, profile and the scenario's folder.

    Raises:
        UserError: see `train_method`.
    """
    loaded, sizes = load_scenario(scenario), load_profile(profile)
    check_methods("command line", "--method", [method], known_methods())
    check_methods(f"scenario {scenario}", "methods", loaded.methods, known_methods())
    for number, task in enumerate(loaded.tasks):
        check_known(f"scenario {scenario}", f"tasks.{number}.lm_eval_task", [task.lm_eval_task], task_names())
    check_methods(f"profile {profile}", "learning_rates", sizes.learning_rates, ["default", *known_methods()])
    check_methods(f"profile {profile}", "method_options", sizes.method_options, known_methods())
    scenario_dir = results / sizes.name / loaded.name
    _require(scenario_dir, loaded, sizes)
    return loaded, sizes, scenario_dir


def _require(scenario_dir: Path, scenario: Scenario, profile: Profile) -> None:
    """Check that data, partition and features exist."""
    steps = {
        "data/manifest.json": "data build",
        "partition/heterogeneity.json": "partition",
        "features/index.json": "backbone features",
    }
    for name, command in steps.items():
        if not (scenario_dir / name).is_file():
            raise UserError(
                f"{scenario_dir / name}: missing. Run `pilot-bench {command} --scenario {scenario.name} --profile "
                f"{profile.name}` first, or `snakemake --cores all {scenario_dir}/tables/main.md` for everything."
            )
