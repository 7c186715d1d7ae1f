"""Training of runs given by name, as on the command line."""

from collections.abc import Callable
from pathlib import Path

from pilot.errors import UserError
from pilot.federation.tracking import Track, track_nothing
from pilot.runs.inputs import load_run_inputs

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
    track: Track = track_nothing,
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
        track: reports to the profile's trackers.

    Raises:
        UserError: an unknown name, a fault that does not fit, or data, partition or features that are missing.
    """
    if replace and not resume:
        raise UserError("--replace-changed, --no-resume: the first keeps an old run, the second discards it. Give one.")
    inputs = load_run_inputs(scenario, profile, method, results, seed, fault)
    from pilot.federation.training import train_run

    if engine != "flower" and (client_cpus, client_gpus) != (1.0, 0.0):
        raise UserError("--client-cpus, --client-gpus: only for --engine flower; --engine local trains one at a time.")
    with track(inputs.run_dir, inputs.spec.profile.tracking) as report:

        def advance(done: int, total: int) -> None:
            progress(done, total)
            report()

        if engine == "flower" and inputs.spec.make_method().phases(1):
            from pilot.federation.flower.server import ClientResources, simulate_run

            resources = ClientResources(client_cpus, client_gpus)
            simulate_run(
                inputs.spec, inputs.scenario_dir, inputs.run_dir, resume, advance, resources=resources, replace=replace
            )
        else:
            train_run(inputs.spec, inputs.scenario_dir, inputs.run_dir, resume, advance, replace)
    return inputs.run_dir
