"""The server's side of a run over Flower, and whole simulations on Ray."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid
from flwr.superlink.grid import InMemoryGrid
from pydantic import Field

from pilot.backbone.server_backbone import load_server_backbone
from pilot.config.base import Model
from pilot.config.files import validated
from pilot.errors import UserError
from pilot.federation.flower.ray_process import run_in_process
from pilot.federation.flower.transport import PATIENCE_SECONDS, WINDOW, FlowerTransport
from pilot.federation.nodes import prepare_nodes, read_register
from pilot.federation.run_inputs import RunInputs
from pilot.federation.spec import RunSpec
from pilot.federation.tracking import Track, track_nothing
from pilot.federation.training import ServerRun, run_server
from pilot.io.atomic import read_jsonl
from pilot.io.lock import locked
from pilot.methods.blind import Blind


class RunOptions(Model):
    """The app's run configuration: the run, its folders on the server, and limits for the clients.

    Attributes:
        scenario: name or file, as is `profile`.
        nodes: folder with federation.json; empty for `nodes` in the scenario's folder.
        window: maximum number of clients that work at the same time.
        patience: seconds to wait for a client whose node is offline.
        limit: seconds that a client may take for a phase; 0 for any time.
    """

    scenario: str
    profile: str
    method: str
    seed: Annotated[int, Field(ge=0)]
    results: str
    nodes: str = ""
    resume: bool = True
    window: Annotated[int, Field(ge=1)] = WINDOW
    patience: Annotated[float, Field(ge=0, allow_inf_nan=False)] = PATIENCE_SECONDS
    limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


@dataclass(frozen=True)
class ClientResources:
    """Resources of a simulated client; fractions of a GPU are allowed, so that clients share it."""

    cpus: float = 1.0
    gpus: float = 0.0


def serve_context(grid: Grid, context: Context, track: Track = track_nothing) -> None:
    """Train the run that the run configuration describes; `track` reports to the profile's trackers.

    Raises:
        UserError: an unknown name, missing files, or no client that answers.
    """
    options = validated(RunOptions, "--run-config", context.run_config)
    inputs = RunInputs.from_names(
        options.scenario, options.profile, options.method, options.seed, Path(options.results)
    )
    spec, folder = inputs.spec, inputs.scenario_dir
    if isinstance(spec.make_method(), Blind):  # an unknown method is also refused before anything is written
        raise UserError(f"--run-config: field method: {spec.method} has no model to train. Use `pilot-bench train`.")
    nodes = Path(options.nodes) if options.nodes else folder / "nodes"
    if (folder / "features" / "index.json").is_file():
        prepare_nodes(spec.scenario, folder, nodes)
    register = read_register(spec, nodes)
    with locked(inputs.run_dir), track(inputs.run_dir, spec.profile.tracking) as report:

        def advance(done: int, total: int) -> None:
            print(f"{done}/{total} optimiser steps", flush=True)
            report()

        run = ServerRun(spec, register, inputs.run_dir, options.resume, advance)
        serve(run, grid, options.patience, options.window, options.limit or None)


def serve(
    run: ServerRun,
    grid: Grid,
    patience: float = PATIENCE_SECONDS,
    window: int = WINDOW,
    limit: float | None = None,
) -> None:
    """Run the rounds over Flower's `grid`; warn about excluded clients. For limits see `FlowerTransport`.

    The caller must hold the run's lock.

    Raises:
        UserError: a simulation has fewer nodes than clients, or no client answers; also as `run_server`.
    """
    transport = FlowerTransport(grid, run.config(), run.register.nodes, window, patience, limit)
    if isinstance(grid, InMemoryGrid):
        transport.require_nodes(len(run.register.num_examples))
    method = run.spec.make_method()
    backbone = load_server_backbone(run.spec.profile, weights=method.starts_from_weights or method.trains_language)
    run_server(run, backbone, transport)
    for line in exclusion_messages(read_jsonl(run.run_dir / "rounds.jsonl")):
        run.warn(line)


def exclusion_messages(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each client excluded from phases: how many, and the last reason."""
    excluded = [each for row in history for each in row["excluded"]]
    lines = []
    for client in sorted({each["client"] for each in excluded}):
        reasons = [each["reason"] for each in excluded if each["client"] == client]
        lines.append(f"client {client} was excluded from {len(reasons)} of {len(history)} phases: {reasons[-1]}")
    return lines


def simulate_run(
    spec: RunSpec,
    scenario_dir: Path,
    run_dir: Path,
    resume: bool,
    progress: Callable[[int, int], None],
    resources: ClientResources = ClientResources(),
    replace: bool = False,
) -> None:
    """Train on Flower's simulation engine (Ray), one virtual node per client, each with the given resources.

    The simulation runs in a separate process; its log is `logs/simulation-<method>-seed<k>.log` in the scenario's
    folder.

    Raises:
        UserError: as `train_run`; also if a client needs more GPUs or cores than there are, if no client answers, or if
            the simulation fails.
    """
    if resources.gpus > torch.cuda.device_count():
        raise UserError(f"--client-gpus: PyTorch sees {torch.cuda.device_count()} GPUs here, got {resources.gpus:g}.")
    argument = {
        "scenario_config": spec.scenario.model_dump(mode="json"), "method": spec.method, "seed": spec.seed,
        "profile_config": spec.profile.model_dump(mode="json"), "resume": resume, "replace": replace,
        "scenario_dir": str(scenario_dir.resolve()), "run_dir": str(run_dir.resolve()),
        "backend": simulation_backend(resources), "keep_messages": list(spec.profile.keep_messages),
    }  # fmt: skip

    def on_message(kind: str, value: Any) -> None:
        if kind == "progress":
            progress(*value)
        else:
            print(f"warning: {value}", file=sys.stderr, flush=True)

    log = scenario_dir.resolve() / "logs" / f"simulation-{spec.method}-seed{spec.seed}.log"
    run_in_process("pilot.federation.flower.simulation", argument, log, on_message)


def simulation_backend(resources: ClientResources = ClientResources()) -> dict[str, Any]:
    """Configure a new Ray with this machine's cores and no dashboard; client resources limit how many run at a time.

    Ray counts the GPUs itself, and shows each client's process only those that it was given. Flower passes
    `client_resources` to Ray's actors as options, so a killed worker is restarted; without `max_restarts` it stays in
    Flower's pool, and a run whose workers have all been killed once waits forever.

    Raises:
        UserError: a client needs more cores than there are, so that none would ever start.
    """
    cores = len(os.sched_getaffinity(0))
    if resources.cpus > cores:
        raise UserError(f"--client-cpus: expected at most this machine's {cores} cores, got {resources.cpus:g}.")
    return {
        "init_args": {
            "address": "local", "num_cpus": cores, "include_dashboard": False, "log_to_driver": True,
            "logging_level": 30,
        },
        "client_resources": {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_restarts": -1},
    }  # fmt: skip
