"""The Flower app: `server` and `client`, as declared in `pyproject.toml`. Importing this module is cheap."""

import logging

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from pilot.errors import UserError
from pilot.federation.flower.node_app import make_client_app

client = make_client_app()
server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Serve the run that `flwr run . --run-config '...'` starts.

    Raises:
        UserError: see `serve_context`; Flower then ends the run as failed, with this message in its details.
    """
    from pilot.federation.flower.server import serve_context
    from pilot.report.tracking import track

    try:
        serve_context(grid, context, track)
    except UserError:
        logging.getLogger("flwr").addFilter(_without_traceback)
        raise


def _without_traceback(record: logging.LogRecord) -> bool:
    """Reduce the log record of a `UserError` to one line; let every record pass."""
    if record.exc_info and isinstance(record.exc_info[1], UserError):
        record.msg, record.args, record.exc_info = f"{record.getMessage()}: {record.exc_info[1]}", (), None
    return True
