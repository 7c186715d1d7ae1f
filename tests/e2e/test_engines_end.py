"""Runs with Ray or a deployment end, with one message and no process left, however they are stopped.

The environment is one that would lead connections elsewhere or leave no room for sockets.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.federation.flower import ray_process, server
from pilot.io.processes import all_processes

from ..small import Small, quiet

pytestmark = [pytest.mark.slow, pytest.mark.engine]
COMMAND = [sys.executable, "-c", "from pilot.cli.main import main; main()"]
NOWHERE = "http://127.0.0.1:9"
PROXIES = {name: NOWHERE for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "grpc_proxy", "NO_PROXY")}
ELSEWHERE = PROXIES | {"ALL_PROXY": "socks5://127.0.0.1:9", "all_proxy": "socks5://127.0.0.1:9", "RAY_ADDRESS": "auto"}
START_SECONDS = 600.0
END_SECONDS = 300.0
"""On a machine that does nothing else it is less than ten; beside six busy processes on two cores, over a minute."""


@dataclass
class Command:
    """A running `pilot-bench` with everything that it has started, found by a variable that all of them inherit."""

    process: "subprocess.Popen[str]"
    token: str

    def running(self) -> dict[int, str]:
        """Command lines by process."""
        mark = f"PILOT_TEST={self.token}".encode()
        return {process: command for process, command, environment in all_processes() if mark in environment}

    def wait_for(self, name: str) -> None:
        """Until a process of this name is there."""
        until = time.monotonic() + START_SECONDS
        while not any(name in command for command in self.running().values()):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.1)

    def signal(self, number: int, name: str) -> None:
        """Send a signal to every process with this in its command line."""
        for process, command in self.running().items():
            if name in command:
                with contextlib.suppress(ProcessLookupError):  # it ends because another one was told to
                    os.kill(process, number)

    def end(self) -> tuple[int, str]:
        """Exit code and message, once nothing is left."""
        _, message = self.process.communicate(timeout=END_SECONDS)
        assert self.running() == {}
        return self.process.returncode, message


@pytest.fixture
def start(few: Small, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start a command on the small scenario, in a session of its own as a batch system does."""
    started: list[Command] = []
    long = tmp_path / ("t" * 100)
    long.mkdir()

    def run(*words: str) -> Command:
        token = uuid.uuid4().hex
        where = ["-s", str(few.scenario_file), "-p", str(few.profile_file), "--results", str(few.results)]
        environment = {
            **os.environ, **ELSEWHERE, "OMP_NUM_THREADS": "1", "TMPDIR": str(long), "PILOT_TEST": token,
        }  # fmt: skip
        # Who starts the tests in a shell's background has them ignore SIGINT, and children inherit that.
        hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(
            [*COMMAND, *words, *where], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=hears,
        )  # fmt: skip
        started.append(Command(process, token))
        return started[-1]

    yield run
    for command in started:
        command.signal(signal.SIGKILL, "")


SIMULATION = ("train", "-m", "fedavg", "--seed", "71", "--engine", "flower")
DEPLOYMENT = ("deploy", "local", "-m", "fedavg", "--seed", "71", "--nodes", "3")
WORKER, FAILED = "ray::ClientAppActor", "error: Flower's simulation failed: Ray's"
CASES = {
    "simulation-sigterm": (SIMULATION, WORKER, "pilot.cli.main", signal.SIGTERM, 143, "terminated; "),
}
MORE = {
    "deployment-ctrl-c": (DEPLOYMENT, "flwr-clientapp", "pilot.cli.main", signal.SIGINT, 130, "interrupted; "),
    "simulation-ctrl-c": (SIMULATION, WORKER, "pilot.cli.main", signal.SIGINT, 130, "interrupted; "),
    "simulation-slurm": (SIMULATION, WORKER, "", signal.SIGTERM, 143, "terminated; "),
    "simulation-starting": (SIMULATION, "gcs_server", "", signal.SIGTERM, 143, "terminated; "),
    "raylet": (SIMULATION, WORKER, "raylet/raylet ", signal.SIGKILL, 2, FAILED),
    "gcs": (SIMULATION, WORKER, "gcs_server ", signal.SIGKILL, 2, FAILED),
    "simulation": (SIMULATION, WORKER, "flower.simulation", signal.SIGKILL, 2, "error: Flower's simulation ended"),
    "deployment-sigterm": (DEPLOYMENT, "flower-supernode", "pilot.cli.main", signal.SIGTERM, 143, "terminated; "),
}
"""Every other way is exhaustive."""
PARAMETERS = [
    *(pytest.param(*case, id=name) for name, case in CASES.items()),
    *(pytest.param(*case, id=name, marks=pytest.mark.exhaustive) for name, case in MORE.items()),
]


@pytest.mark.parametrize(("words", "there", "to", "number", "code", "says"), PARAMETERS)
def test_one_message_and_no_process_left(
    start: Callable[..., Command], words: tuple[str, ...], there: str, to: str, number: int, code: int, says: str
) -> None:
    command = start(*words)
    command.wait_for(there)
    command.signal(number, to)
    ended, message = command.end()
    assert (ended, message.count("\n")) == (code, 1) and message.startswith(says), message


@pytest.mark.exhaustive
def test_a_deployment_behind_proxies_trains(start: Callable[..., Command], few: Small) -> None:
    command = start(*DEPLOYMENT)
    _, message = command.process.communicate(timeout=START_SECONDS)
    assert command.process.returncode == 0, message
    assert (few.folder / "runs/fedavg/seed71/manifest.json").is_file() and command.running() == {}


FEW = """\
import sys
import flwr.simulation
from pilot.federation.flower.ray_process import run_and_exit
from pilot.federation.flower.simulation import simulate
start = flwr.simulation.run_simulation
flwr.simulation.run_simulation = lambda app, client, nodes, **more: start(app, client, nodes - 1, **more)
run_and_exit(sys.argv[1], simulate)
"""


@pytest.mark.exhaustive
def test_fewer_virtual_nodes_than_clients_are_refused(
    few: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `flwr run . --federation-config num-supernodes=2`."""
    (tmp_path / "few.py").write_text(FEW)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setattr(server, "run_in_process", lambda module, *rest: ray_process.run_in_process("few", *rest))
    with pytest.raises(UserError, match="num-supernodes=2: the run has 3 clients.* Expected num-supernodes=3"):
        server.simulate_run(few.spec("fedavg"), few.folder, tmp_path / "run", True, quiet)
    assert not (tmp_path / "run").exists(), "nothing was trained"
