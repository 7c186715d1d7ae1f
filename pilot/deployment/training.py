"""Training on a deployment, and collection of the clients' private state afterwards."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from pilot.config.load import load_profile, load_scenario
from pilot.deployment.local import LocalDeployment, Node
from pilot.errors import UserError
from pilot.federation.checkpoint import load_last, versions_to_keep
from pilot.federation.flower.server import RunOptions
from pilot.federation.node_folder import POOLED, node_name
from pilot.federation.nodes import prepare_nodes, read_register
from pilot.federation.run_inputs import RunInputs
from pilot.federation.store import ClientStore
from pilot.federation.training import CLIENTS, ServerRun
from pilot.io.atomic import replace_file
from pilot.io.lock import locked
from pilot.runs.inputs import check_method_option, check_trainable, load_run_inputs


def check_deployable(options: RunOptions) -> None:
    """Refuse a run that no server could train; a file that only the server has is given by its absolute path.

    Raises:
        UserError: an unknown scenario, profile or method, a file with mistakes, or a method that trains nothing.
    """
    for load, name in ((load_scenario, options.scenario), (load_profile, options.profile)):
        if not (_is_file_name(name) and Path(name).is_absolute() and not Path(name).exists()):
            load(name)
    check_method_option([options.method])
    check_trainable(options.method, "deployed", "Use `pilot-bench train`.")


def train_deployed(options: RunOptions, num_nodes: int, show: Callable[[str], None]) -> Path:
    """Train on a deployment on this machine; return the run's folder.

    The nodes' private state is written to the run's folder, where evaluation looks for it. Logs and keys are in
    `<scenario folder>/deployment/`.

    Args:
        options: the run to train; `nodes` is not used.
        num_nodes: number of SuperNodes to start; must be the number of the run's clients.
        show: called with each line of the ServerApp's log.

    Raises:
        UserError: an unknown name, data that are missing, a wrong number of nodes, or a run that did not complete.
    """
    results = Path(options.results)
    RunInputs.from_names(options.scenario, options.profile, options.method, options.seed, results)
    inputs = load_run_inputs(options.scenario, options.profile, options.method, results, options.seed)
    check_trainable(options.method, "deployed", "Use `pilot-bench train`.")
    inputs = replace(inputs, scenario_dir=inputs.scenario_dir.resolve())
    spec, folder, run_dir = inputs.spec, inputs.scenario_dir, inputs.run_dir
    method = spec.make_method()
    clients = [info.client for info in spec.clients(method)]
    if num_nodes != len(clients):
        raise UserError(
            f"--nodes {num_nodes}: {spec.method} on scenario {spec.scenario.name} has {len(clients)} clients, and each "
            f"needs its own node. Expected --nodes {len(clients)}."
        )
    prepare_nodes(spec.scenario, folder, folder / "nodes")
    register = read_register(spec, folder / "nodes")
    with locked(run_dir):  # fail before anything starts if the ServerApp would refuse
        ServerRun(spec, register, run_dir, options.resume, lambda done, total: None).archive_different_run()
    nodes = [
        Node(folder / "nodes" / node_name(POOLED if method.pooled else client), run_dir / CLIENTS / str(client))
        for client in clients
    ]
    with LocalDeployment(folder / "deployment", nodes) as deployment:
        deployment.run(flower_config(options.model_copy(update={"nodes": str(folder / "nodes")})), show)
    return run_dir


def flower_config(options: RunOptions) -> dict[str, str | int | float | bool]:
    """Return the run configuration of the Flower app; paths are absolute, since the ServerApp runs elsewhere."""
    named = {"scenario": _absolute(options.scenario), "profile": _absolute(options.profile)}
    nodes = str(Path(options.nodes).resolve()) if options.nodes else ""
    return options.model_dump() | named | {"results": str(Path(options.results).resolve()), "nodes": nodes}


def collect(run_dir: Path, stores: Mapping[int, Path]) -> None:
    """Copy the clients' private states from their nodes' folders into the run's folder, for evaluation.

    Only the versions that the run's checkpoints name are copied, and those that are evaluated are checked.

    Args:
        run_dir: folder of a run that was trained on a deployment.
        stores: a copy of each node's state folder, by client.

    Raises:
        UserError: there is no finished round, the run keeps no private state of a client, or a version is missing,
            damaged, or not the one that the checkpoint names.
    """
    progress = load_last(run_dir / "checkpoint")
    with locked(run_dir):
        for client, source in sorted(stores.items()):
            if client not in progress.versions:
                raise UserError(f"client {client}: {run_dir} has no private state of this client.")
            for versions in (progress.versions, *progress.evaluated.values()):
                ClientStore(source).load(versions.get(client))
            target = run_dir / CLIENTS / str(client)
            kept = versions_to_keep(progress.versions, *progress.kept, client=client)
            for name in kept:
                for path in source.glob(f"{name}.*"):
                    replace_file(target / path.name, partial(shutil.copyfile, path))
            ClientStore(target).keep(kept)


def _absolute(name: str) -> str:
    """Return a file's absolute path, or a name unchanged."""
    return str(Path(name).resolve()) if _is_file_name(name) else name


def _is_file_name(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))
