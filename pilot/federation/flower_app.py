"""The Flower app: `server` and `client`, as `pyproject.toml` declares them. Importing it loads little."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from pilot.federation.node_app import make_client_app

client = make_client_app()
server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """What `flwr run . --run-config '...'` starts on the server."""
    from pilot.federation.flower_server import run_server

    run_server(grid, context)
