"""`pilot-bench deploy NAME`: keys and certificates, node folders, a whole deployment on this machine."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilot.cli.options import ProfileOption, ResultsOption, ResumeOption, ScenarioOption
from pilot.errors import UserError

if TYPE_CHECKING:
    from pilot.federation.flower.server import RunOptions

WindowOption = Annotated[int | None, typer.Option(min=1, help="Maximum number of clients that work at the same time.")]
PatienceOption = Annotated[float, typer.Option(min=0, help="Seconds to wait for a client whose node is offline.")]
LimitOption = Annotated[float, typer.Option(min=0, help="Seconds that a client may take for a phase; 0: no limit.")]

deploy_app = typer.Typer(help="Runs on several machines; see docs/deploy.md.", no_args_is_help=True)


@deploy_app.callback()
def deploy() -> None:
    """Prepare and run training on several machines; see docs/deploy.md."""


@deploy_app.command()
def local(
    nodes: Annotated[int, typer.Option(min=1, help="Number of SuperNodes; must be the number of clients.")],
    scenario: ScenarioOption = "scenario2",
    method: Annotated[str, typer.Option("--method", "-m", help="See `pilot-bench list methods`.")] = "pilot",
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial values and batches.")] = 0,
    profile: ProfileOption = "embedded",
    results: ResultsOption = Path("results"),
    resume: ResumeOption = True,
    window: WindowOption = None,
    patience: PatienceOption = 600.0,
    limit: LimitOption = 0.0,
) -> None:
    """Train on a deployment on this machine: a SuperLink and one SuperNode per client, with TLS and node keys.

    All processes end with the command.
    """
    from pilot.deployment.training import train_deployed

    options = _options(
        scenario=scenario, profile=profile, method=method, seed=seed, results=str(results), resume=resume,
        window=window or len(os.sched_getaffinity(0)), patience=patience, limit=limit,
    )  # fmt: skip
    run_dir = train_deployed(options, nodes, typer.echo)
    typer.echo(str(run_dir), err=True)


@deploy_app.command()
def certificates(
    folder: Annotated[Path, typer.Argument(help="Output folder for ca.pem, ca.key, server.pem and server.key.")],
    host: Annotated[list[str] | None, typer.Option(help="Name or address of the server; repeat the option.")] = None,
) -> None:
    """Make an authority and the server's certificate; localhost and 127.0.0.1 are always in it."""
    from pilot.deployment.certificates import make_certificates

    made = make_certificates(folder, host or ())
    typer.echo(f"for every machine: {made.authority}")
    typer.echo(f"for the server only: {made.certificate}, {made.key}")


@deploy_app.command()
def key(file: Annotated[Path, typer.Argument(help="Private key to write; its public key is <file>.pub.")]) -> None:
    """Make a node's key pair."""
    from pilot.deployment.certificates import make_node_key

    typer.echo(f"for the server: {make_node_key(file)}")


@deploy_app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def superlink(context: typer.Context) -> None:
    """Run `flower-superlink` with the given options, and also log failed TLS handshakes."""
    from pilot.deployment.superlink import run_superlink

    run_superlink(context.args)


@deploy_app.command("nodes")
def nodes_(
    scenario: ScenarioOption, profile: ProfileOption = "embedded", results: ResultsOption = Path("results")
) -> None:
    """Split a scenario into one folder per client, and write federation.json, the only file that the server needs."""
    from pilot.config.load import load_setting
    from pilot.federation.nodes import prepare_nodes

    loaded, _, folder = load_setting(scenario, profile, results)
    prepare_nodes(loaded, folder, folder / "nodes")
    typer.echo(str(folder / "nodes"))


@deploy_app.command("app")
def app_(
    folder: Annotated[Path, typer.Argument(help="Output folder of the app's description, for `flwr run`.")],
    scenario: ScenarioOption,
    method: Annotated[str, typer.Option("--method", "-m", help="See `pilot-bench list methods`.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial values and batches.")] = 0,
    profile: ProfileOption = "embedded",
    results: ResultsOption = Path("results"),
    nodes: Annotated[Path | None, typer.Option(help="The server's folder with federation.json.")] = None,
    resume: ResumeOption = True,
    window: WindowOption = None,
    patience: PatienceOption = 600.0,
    limit: LimitOption = 0.0,
) -> None:
    """Write the description of a run for `flwr run`: names and numbers only; each machine runs its installed code."""
    from pilot.deployment.flower_command import write_app
    from pilot.deployment.training import check_deployable, flower_config

    options = _options(
        scenario=scenario, profile=profile, method=method, seed=seed, results=str(results), resume=resume,
        window=window, patience=patience, limit=limit, nodes=str(nodes) if nodes else None,
    )  # fmt: skip
    check_deployable(options)
    write_app(folder, flower_config(options))


@deploy_app.command()
def collect(
    run: Annotated[Path, typer.Argument(help="Run directory on the server.")],
    states: Annotated[list[str], typer.Argument(help="<client>=<copy of its node's state folder>, for each client.")],
) -> None:
    """Copy clients' private states into the run directory, where `evaluate` looks for them."""
    from pilot.deployment.training import collect as collect_states

    stores = {}
    for state in states:
        client, _, folder = state.partition("=")
        if not client.isdecimal() or not Path(folder).is_dir():
            raise UserError(f"{state}: expected <client>=<folder>, such as 3=/copies/node-3.")
        stores[int(client)] = Path(folder)
    collect_states(run, stores)


def _options(**given: Any) -> "RunOptions":
    """Return the options of a run over Flower, with defaults for those that are None."""
    from pilot.config.files import validated
    from pilot.federation.flower.server import RunOptions

    return validated(RunOptions, "command line", {name: value for name, value in given.items() if value is not None})
