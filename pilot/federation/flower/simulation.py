"""Run a simulation in its own process: the server in a thread, virtual nodes on Ray. See `simulate_run`."""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from pilot.federation.flower.node_app import make_client_app, simulated_folders
from pilot.federation.flower.ray_process import SendMessage, run_and_exit, send_result
from pilot.federation.flower.server import serve
from pilot.federation.flower.transport import log
from pilot.federation.nodes import prepare_nodes, read_register
from pilot.federation.spec import RunSpec
from pilot.federation.training import ServerRun
from pilot.io.lock import locked


class _Relay(logging.Handler):
    """Log handler that passes the transport's warnings to the user; everything else stays in the log."""

    def __init__(self, send: SendMessage) -> None:
        super().__init__(logging.WARNING)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send the first line only, since Ray's messages have many."""
        self._send("warning", record.getMessage().partition("\n")[0])


def simulate(argument: dict[str, Any], work: Path, send: SendMessage) -> None:
    """Train the run that `simulate_run` describes, and report the result.

    Raises:
        UserError: a problem that is found before the server starts.
    """
    from flwr.simulation import run_simulation

    config = {**argument["profile_config"], "keep_messages": argument["keep_messages"]}
    spec = RunSpec.from_config({**argument, "profile_config": config})
    scenario_dir, run_dir = Path(argument["scenario_dir"]), Path(argument["run_dir"])
    nodes, method = scenario_dir / "nodes", spec.make_method()
    prepare_nodes(spec.scenario, scenario_dir, nodes)
    log.addHandler(_Relay(send))
    run = ServerRun(
        spec, read_register(spec, nodes), run_dir, argument["resume"],
        lambda done, total: send("progress", [done, total]), argument["replace"], lambda text: send("warning", text),
    )  # fmt: skip
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        send_result(lambda: serve(run, grid), send)

    folders = partial(simulated_folders, scenario_dir, run_dir, method.pooled)
    backend = argument["backend"]
    backend["init_args"]["_temp_dir"] = str(work)
    with locked(run_dir):
        run.archive_different_run()  # before Ray starts
        run_simulation(app, make_client_app(folders), len(spec.clients(method)), backend_config=backend)


if __name__ == "__main__":
    run_and_exit(sys.argv[1], simulate)
