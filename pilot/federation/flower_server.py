"""The server's side of a run over Flower, and whole simulations on Ray."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from pilot.config import load_profile, load_scenario
from pilot.errors import UserError
from pilot.federation.flower_transport import FlowerTransport
from pilot.federation.node_app import Place, make_client_app
from pilot.federation.node_folder import POOLED, node_name
from pilot.federation.nodes import prepare_nodes, read_register
from pilot.federation.spec import RunSpec, load_backbone
from pilot.federation.training import CLIENTS, Conduct, conduct
from pilot.io.lock import locked

WINDOW = 16


@dataclass(frozen=True)
class ClientResources:
    """What a simulated client has to itself; parts of a GPU are allowed, and two clients then share it."""

    cpus: float = 1.0
    gpus: float = 0.0


def run_server(grid: Grid, context: Context) -> None:
    """Train the run that the run configuration describes.

    Raises:
        UserError: an unknown name, missing files, or no client that answers.
    """
    options = context.run_config
    spec = RunSpec(
        load_scenario(str(options["scenario"])), load_profile(str(options["profile"])), str(options["method"]),
        int(str(options["seed"])),
    )  # fmt: skip
    folder = Path(str(options["results"])) / spec.profile.name / spec.scenario.name
    nodes = Path(str(options["nodes"])) if options.get("nodes") else folder / "nodes"
    if (folder / "features" / "index.json").is_file():
        prepare_nodes(spec.scenario, folder, nodes)
    run_dir = folder / "runs" / spec.method / f"seed{spec.seed}"
    resume, patience = bool(options.get("resume", True)), float(str(options.get("patience", 600)))
    run = Conduct(spec, read_register(spec, nodes), run_dir, resume, _lines)
    limit = float(str(options.get("limit", 0.0)))
    with locked(run_dir):
        serve(run, grid, patience, int(str(options.get("window", WINDOW))), limit or None)


def serve(run: Conduct, grid: Grid, patience: float, window: int = WINDOW, limit: float | None = None) -> None:
    """Drive a run over Flower's `grid`; for the numbers see `FlowerTransport`. The caller holds the run's lock.

    The server computes nothing with its backbone, which stays in the host's memory: GPUs are the clients'.
    """
    backbone = load_backbone(run.spec.profile.model_copy(update={"device": "cpu"}), lean=True)
    transport = FlowerTransport(grid, run.config(), run.register.nodes, window, patience, limit)
    conduct(run, backbone, transport)


def _lines(done: int, total: int) -> None:
    print(f"{done}/{total} optimiser steps", flush=True)


@dataclass(frozen=True)
class SimulatedPlaces:
    """Where virtual nodes find their folders, by partition id."""

    nodes: Path
    stores: Path
    pooled: bool

    def __call__(self, context: Context) -> Place:
        """The folders of one virtual node."""
        partition = int(str(context.node_config["partition-id"]))
        return Place(
            self.nodes / node_name(POOLED if self.pooled else partition), self.stores / str(partition)
        )  # fmt: skip


def simulate_run(
    spec: RunSpec,
    scenario_dir: Path,
    run_dir: Path,
    resume: bool,
    progress: Callable[[int, int], None],
    patience: float = 600.0,
    each: ClientResources = ClientResources(),
    replace: bool = False,
) -> None:
    """Train on Flower's simulation engine (Ray), one virtual node per client, each with the resources of `each`.

    Raises:
        UserError: as `train_run` does; also if no client answers any more.
    """
    from flwr.simulation import run_simulation

    scenario_dir, run_dir = scenario_dir.resolve(), run_dir.resolve()
    nodes = scenario_dir / "nodes"
    prepare_nodes(spec.scenario, scenario_dir, nodes)
    method = spec.make_method()
    run = Conduct(spec, read_register(spec, nodes), run_dir, resume, progress, replace)
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        serve(run, grid, patience)

    places = SimulatedPlaces(nodes, run_dir / CLIENTS, method.pooled)
    with locked(run_dir):
        run.make_way()  # before Ray starts
        run_simulation(app, make_client_app(places), len(spec.clients(method)), backend_config=simulation_backend(each))


def simulation_backend(each: ClientResources = ClientResources()) -> dict[str, Any]:
    """Ray with this machine's cores, without its dashboard; as many clients at a time as their resources allow.

    Ray counts the GPUs itself, and shows each client's process only those that it was given. Flower hands
    `client_resources` on to Ray's actors as options, so a killed worker is started again; without `max_restarts` it
    stays in Flower's pool, and a run whose workers have all been killed once waits for ever.

    Raises:
        UserError: a client is to have more cores than there are: none would ever start.
    """
    cores = len(os.sched_getaffinity(0))
    if each.cpus > cores:
        raise UserError(f"--client-cpus: expected at most this machine's {cores} cores, got {each.cpus:g}.")
    return {
        "init_args": {"num_cpus": cores, "include_dashboard": False, "log_to_driver": False, "logging_level": 30},
        "client_resources": {"num_cpus": each.cpus, "num_gpus": each.gpus, "max_restarts": -1},
    }
