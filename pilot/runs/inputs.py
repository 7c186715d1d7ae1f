"""Inputs of runs given by name, as on the command line: everything is checked here, once.

PyTorch is imported after the names were checked, so that a wrong one is reported at once.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.config.fault import load_fault
from pilot.config.files import check_known
from pilot.config.load import load_setting
from pilot.config.profile import Profile
from pilot.config.scenario import Scenario
from pilot.config.variant import base_name, check_methods
from pilot.errors import UserError
from pilot.evaluation.tasks import task_names
from pilot.methods.catalogue import known_methods

if TYPE_CHECKING:
    from pilot.federation.run_inputs import RunInputs


def load_run_inputs(
    scenario: str, profile: str, method: str, results: Path, seed: int = 0, fault: str | None = None
) -> "RunInputs":
    """Load scenario, profile and fault; check names and required files.

    Args:
        scenario: name or file, as are `profile` and `fault`.
        profile: sets the size of everything.
        method: see `pilot-bench list methods`.
        results: the folder of all results.
        seed: seed of the run.
        fault: its section `federation` replaces the profile's.

    Raises:
        UserError: an unknown name, a fault that does not fit, or data, partition or features that are missing.
    """
    loaded, sizes, scenario_dir = load_setting(scenario, profile, results)
    check_method_option([method])
    check_methods(f"scenario {scenario}", "methods", loaded.methods, known_methods())
    for number, task in enumerate(loaded.tasks):
        check_known(f"scenario {scenario}", f"tasks.{number}.lm_eval_task", [task.lm_eval_task], task_names())
    check_methods(f"profile {profile}", "learning_rates", sizes.learning_rates, ["default", *known_methods()])
    check_methods(f"profile {profile}", "method_options", sizes.method_options, known_methods())
    if sizes.forgetting:
        from pilot.evaluation.forgetting import check_forgetting

        check_forgetting(sizes)
    _check_inputs_exist(scenario_dir, loaded, sizes)
    if sizes.budget == "flops":
        from pilot.plan.budget import with_equal_flops

        sizes = with_equal_flops(loaded, sizes, method)
    from pilot.federation.run_inputs import RunInputs
    from pilot.federation.spec import RunSpec

    inputs = RunInputs(RunSpec(loaded, sizes, method, seed), scenario_dir)
    return _with_fault(inputs, fault) if fault else inputs


def check_method_option(methods: Collection[str]) -> None:
    """Check the names given with `--method`.

    Raises:
        UserError: a method or variant is unknown.
    """
    check_methods("command line", "--method", methods, known_methods())


def check_trainable(method: str, done: str, advice: str) -> None:
    """Check that a method has a model to train; `done` is the participle for the message, such as `tuned`.

    Raises:
        UserError: it has none; the message ends with `advice`.
    """
    from pilot.methods.blind import Blind
    from pilot.registry import method_class

    if issubclass(method_class(base_name(method)), Blind):
        raise UserError(f"--method {method}: this method has no model to train, so it cannot be {done}. {advice}")


def _check_inputs_exist(scenario_dir: Path, scenario: Scenario, profile: Profile) -> None:
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
                f"{profile.name}` first, or `snakemake --cores all {scenario_dir}/tables/main.md` for all steps."
            )


def _with_fault(inputs: "RunInputs", name: str) -> "RunInputs":
    """Return the inputs of the run with a fault instead of the profile's section `federation`."""
    spec, fault = inputs.spec, load_fault(name)
    num_clients = len(spec.scenario.client_tasks)
    if not spec.make_method().phases(1):
        raise UserError(f"--fault {name}: {spec.method} trains no clients that could fail. Choose another method.")
    for number, attack in enumerate(fault.federation.attacks):
        if max(attack.clients) >= num_clients:
            raise UserError(
                f"fault {fault.name}: field federation.attacks.{number}.clients: scenario {spec.scenario.name} has no "
                f"client {max(attack.clients)}, expected numbers in 0..{num_clients - 1}."
            )
    profile = spec.profile.model_copy(update={"federation": fault.federation, "evaluate_every": None, "forgetting": ()})
    return replace(inputs, spec=replace(spec, profile=profile), fault=fault.name)
