"""Training on a deployment, and collection of the clients' private state afterwards."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pilot.config.load import load_profile, load_scenario
from pilot.config.variant import base_name, check_methods
from pilot.deployment.local import LocalDeployment, Node
from pilot.errors import UserError
from pilot.federation.checkpoint import load_progress, names_to_keep
from pilot.federation.flower.transport import WINDOW
from pilot.federation.node_folder import POOLED, node_name
from pilot.federation.nodes import prepare_nodes, read_register
from pilot.federation.spec import RunSpec
from pilot.federation.store import ClientStore
from pilot.federation.training import CLIENTS, ServerRun
from pilot.io.atomic import replace_file
from pilot.io.lock import locked
from pilot.methods.blind import Blind
from pilot.provenance import known_methods
from pilot.registry import method_class
from pilot.runs.train import load_run_inputs


@dataclass(frozen=True)
class Request:
    """A run given by names or files, as on the command line, and the limits for its clients.

    Attributes:
        window: maximum number of clients that work at the same time; None for the default.
        patience: seconds to wait for a client whose node is offline.
        limit: seconds that a client may take for a phase; 0 for any time.
    """

    scenario: str
    profile: str
    method: str
    seed: int
    results: Path
    resume: bool = True
    window: int | None = None
    patience: float = 600.0
    limit: float = 0.0

    def check_names(self) -> None:
        """Refuse a request that no server could run; a file that only the server has is given by its absolute path.

        Raises:
            UserError: an unknown scenario, profile or method, a file with mistakes, or a method that trains nothing.
        """
        for load, name in ((load_scenario, self.scenario), (load_profile, self.profile)):
            if not (_is_file_name(name) and Path(name).is_absolute() and not Path(name).exists()):
                load(name)
        check_methods("command line", "--method", [self.method], known_methods())
        if issubclass(method_class(base_name(self.method)), Blind):
            raise UserError(
                f"--method {self.method}: nothing is trained, so nothing can be deployed. Use `pilot-bench train`."
            )


def train_deployed(request: Request, num_nodes: int, show: Callable[[str], None]) -> Path:
    """Train on a deployment on this machine; return the run's folder.

    The nodes' private state is written to the run's folder, where evaluation looks for it. Logs and keys are in
    `<scenario folder>/deployment/`.

    Args:
        request: the run to train.
        num_nodes: number of SuperNodes to start; must be the number of the run's clients.
        show: called with each line of the ServerApp's log.

    Raises:
        UserError: an unknown name, data that are missing, a wrong number of nodes, or a run that did not complete.
    """
    request.check_names()
    scenario, profile, folder = load_run_inputs(request.scenario, request.profile, request.method, request.results)
    spec = RunSpec(scenario, profile, request.method, request.seed)
    method = spec.make_method()
    clients = [info.client for info in spec.clients(method)]
    if num_nodes != len(clients):
        raise UserError(
            f"--nodes {num_nodes}: {request.method} on scenario {scenario.name} has {len(clients)} clients, and each "
            f"needs a node of its own. Expected --nodes {len(clients)}."
        )
    folder = folder.resolve()
    run_dir = folder / "runs" / request.method / f"seed{request.seed}"
    prepare_nodes(scenario, folder, folder / "nodes")
    register = read_register(spec, folder / "nodes")
    with locked(run_dir):  # fail before anything starts if the ServerApp would refuse
        ServerRun(spec, register, run_dir, request.resume, lambda done, total: None).make_way()
    nodes = [
        Node(folder / "nodes" / node_name(POOLED if method.pooled else client), run_dir / CLIENTS / str(client))
        for client in clients
    ]
    with LocalDeployment(folder / "deployment", nodes) as deployment:
        options = run_options(request) | {"nodes": str(folder / "nodes"), "window": request.window or _cores()}
        deployment.run(options, show)
    return run_dir


def _cores() -> int:
    """Return how many client processes this machine should run at once."""
    return len(os.sched_getaffinity(0))


def run_options(request: Request) -> dict[str, str | int | float | bool]:
    """Return the run configuration of the Flower app; paths are absolute, since the ServerApp runs elsewhere."""
    return {
        "scenario": _absolute(request.scenario),
        "profile": _absolute(request.profile),
        "method": request.method,
        "seed": request.seed,
        "results": str(request.results.resolve()),
        "resume": request.resume,
        "window": request.window or WINDOW,
        "patience": request.patience,
        "limit": request.limit,
    }


def collect(run_dir: Path, stores: Mapping[int, Path]) -> None:
    """Copy the clients' private states from their nodes' folders into the run's folder, for evaluation.

    Only the versions that the run's checkpoints name are copied, and the last one of each client is checked.

    Args:
        run_dir: folder of a run that was trained on a deployment.
        stores: a copy of each node's state folder, by client.

    Raises:
        UserError: there is no finished round, the run keeps no private state of a client, or a version is missing,
            damaged, or not the one that the checkpoint names.
    """
    progress = load_progress(run_dir / "checkpoint", None)
    if progress is None:
        raise UserError(f"{run_dir / 'checkpoint'}: no finished round here. Train the run first.")
    with locked(run_dir):
        for client, source in sorted(stores.items()):
            if client not in progress.versions:
                raise UserError(f"client {client}: the run keeps no private state of it.")
            ClientStore(source).load(progress.versions[client])
            target = run_dir / CLIENTS / str(client)
            for name in names_to_keep(progress.versions, progress.previous, client=client):
                for path in source.glob(f"{name}.*"):
                    replace_file(target / path.name, partial(shutil.copyfile, path))
            ClientStore(target).keep(names_to_keep(progress.versions, progress.previous, client=client))


def _absolute(name: str) -> str:
    """Return a file's absolute path, or a name unchanged."""
    return str(Path(name).resolve()) if _is_file_name(name) else name


def _is_file_name(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))
