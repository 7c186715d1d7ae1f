"""docs/deploy.md from its first section to its last, as it stands, with every machine a folder on this one.

Host names, the port and folders are this machine's; nothing else of a command is changed.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilot.deployment.flower_command import ENVIRONMENT
from pilot.federation.training import CLIENTS
from pilot.io.processes import Process, Processes, free_port

from ..docs.pages import Command, commands_of

pytestmark = [pytest.mark.engine, pytest.mark.exhaustive]  # `make test` has test_deploy.py and test_deployed_runs.py
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
RUN = Path("results/smoke/smoke/runs/pilot/seed0")
CLIENTS_OF_SMOKE = 6
PATIENCE = 600.0
"""Seconds that anything may take on a busy machine."""


class Machines:
    """The server's folder and one for each node, and the page's commands for them."""

    def __init__(self, root: Path) -> None:
        self.server, self.nodes = root / "server", [root / f"node-{k}" for k in range(CLIENTS_OF_SMOKE)]
        for folder in (self.server, *self.nodes):
            folder.mkdir(parents=True)
        self.port = free_port(())
        self.commands = list(commands_of("deploy.md", PAGE))
        exports = [word for each in self.commands if each.program == "export" for word in each.text.split()[1:]]
        quiet = {key: value for key, value in (word.split("=") for word in exports) if "proxy" not in key.lower()}
        assert quiet == ENVIRONMENT, "the page's environment is not the deployment's"
        self.processes = Processes(root / "logs", {**ENVIRONMENT, "PYTHONPATH": str(ROOT), "PATH": _path()})

    def take(self, beginning: str) -> str:
        """The page's next command, which begins like this."""
        command: Command = self.commands.pop(0)
        assert command.text.startswith(beginning), command
        return command.text.replace("SUPERLINK", "localhost").replace("8000", str(self.port))

    def run(self, text: str, folder: Path) -> str:
        """Run a command to its end; what it printed."""
        environment = self.processes.full_environment() | {"FLWR_HOME": str(self.server / "flwr")}
        bash = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(bash, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, name: str, text: str, folder: Path, home: Path) -> Process:
        """Start a command that stays."""
        script = f"cd {shlex.quote(str(folder))}\n{text}"
        return self.processes.start(name, ["bash", "-c", script], {"FLWR_HOME": str(home)})


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def block(language: str, holds: str) -> str:
    """The page's block in a language that holds something."""
    (found,) = [text for text in re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S) if holds in text]
    return str(found)


def wait(ready: Callable[[], bool], what: Callable[[], str]) -> None:
    """Until something is so."""
    until = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < until, what()
        time.sleep(0.2)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Everything that was started is gone afterwards."""
    made = Machines(tmp_path)
    (made.server / "pipelines").symlink_to(ROOT / "pipelines")
    try:
        yield made
    finally:
        made.processes.end()
    assert made.processes.running() == {}


def test_the_page_from_first_to_last(machines: Machines, smoke_run: Path) -> None:
    """Its first command, a deployment on this machine, with one client; with all six below."""
    server, nodes = machines.server, machines.nodes
    local = machines.take("pilot-bench deploy local")
    machines.commands = [each for each in machines.commands if each.program != "export"]

    machines.run(machines.take("pilot-bench deploy certificates"), server)
    for beginning in ("openssl req -x509", "openssl req -new", "printf", "openssl x509"):
        machines.run(machines.take(beginning), server)  # in place of the certificates before
    key = machines.take("pilot-bench deploy key")
    for k, node in enumerate(nodes):
        machines.run(key, node)
        shutil.copy(node / "keys/node.pub", server / f"node-{k}.pub")
        shutil.copy(server / "tls/ca.pem", node)

    for beginning in ("data build", "partition", "backbone features", "deploy nodes"):
        machines.run(machines.take(f"pilot-bench {beginning}"), server)
    for k, node in enumerate(nodes):
        shutil.move(server / f"results/smoke/smoke/nodes/node-{k}", node / "data")

    superlink = machines.start(
        "superlink", machines.take("pilot-bench deploy superlink"), server, server / "flwr-server"
    )
    config = block("toml", "[superlink.pilot]").replace("SUPERLINK:8000", f"localhost:{machines.port}")
    (server / "flwr").mkdir()
    (server / "flwr/config.toml").write_text(config.replace("/absolute/path/to", str(server)))
    wait(lambda: _listens(machines.port), superlink.last_error_lines)
    register, listing = machines.take("flwr supernode register"), machines.take("flwr supernode list")
    for k in range(CLIENTS_OF_SMOKE):
        machines.run(register.replace("node-0.pub", f"node-{k}.pub"), server)

    loop, ports = machines.take("while true"), [machines.port]
    started = []
    for k, node in enumerate(nodes):
        places = block("toml", "state = ").replace("/srv/pilot/node-0", str(node / "data"))
        (node / "node.toml").write_text(places.replace("/srv/pilot", str(node)))
        ports.append(free_port(ports))
        own = loop.replace("flower-supernode ", f"flower-supernode --port {ports[-1]} ")  # as the page says of two
        started.append(machines.start(f"node-{k}", own, node, node / "flwr"))
    for node_process in started:
        wait(lambda it=node_process: any("SuperNode ID:" in line for line in it.lines()), node_process.last_error_lines)
    assert machines.run(f"{listing} --format json", server).count('"online"') == CLIENTS_OF_SMOKE

    machines.run(machines.take("pilot-bench deploy app"), server)
    log = machines.run(machines.take("flwr run"), server)
    assert (server / RUN / "manifest.json").is_file(), log

    collect = machines.take("pilot-bench deploy collect")
    words, pairs = collect.split(" 0=")[0], re.findall(r"\b(\d)=(copies/node-\1)\b", collect)
    assert pairs[0] == ("0", "copies/node-0")
    for k, node in enumerate(nodes):
        shutil.copytree(node / "state", server / f"copies/node-{k}")
    machines.run(" ".join([words, *(f"{k}=copies/node-{k}" for k in range(CLIENTS_OF_SMOKE))]), server)
    machines.run(machines.take("pilot-bench evaluate"), server)
    assert machines.commands == []
    machines.processes.end()

    assert answers(server) == answers(smoke_run)
    pooled = local.replace("--method pilot --nodes 6", "--method central --nodes 1")
    assert pooled != local
    machines.run(pooled, server)
    central = server / RUN.parents[1] / "central/seed0"
    assert (central / "manifest.json").is_file() and len(list((central / CLIENTS).iterdir())) == 1


def test_a_deployment_on_this_machine_as_it_stands(machines: Machines, smoke_run: Path) -> None:
    server, scenario = machines.server, RUN.parents[2]
    shutil.copytree(smoke_run / scenario, server / scenario, ignore=shutil.ignore_patterns("runs", "faults"))
    machines.run(machines.take("pilot-bench deploy local"), server)
    assert len(list((server / RUN / CLIENTS).iterdir())) == CLIENTS_OF_SMOKE
    machines.run(f"pilot-bench evaluate {RUN}", server)
    assert answers(server) == answers(smoke_run)


def answers(folder: Path) -> bytes:
    """What the evaluated run answers."""
    return (folder / RUN / "eval/samples.jsonl").read_bytes()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
