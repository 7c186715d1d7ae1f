"""A complete deployment on this machine: a SuperLink and SuperNodes as separate processes, with TLS and node keys.

It does on the loopback interface what `docs/deploy.md` does by hand on several machines: it creates an authority and
keys, gives every node its own folders for data and private state, and submits the run with Flower's command line. All
files are in one folder, and all processes end with the `with` block.
"""

import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from pilot.deployment.certificates import Certificates, make_certificates, make_node_key
from pilot.deployment.flower_command import APP, FlowerCommand, RunStatus, Value, environment, write_toml
from pilot.errors import UserError
from pilot.io.atomic import remove_folder, write_text
from pilot.io.processes import Process, Processes, free_port

MARKER = "deployment.txt"
START_SECONDS = 60.0
FAST_SHUTDOWN_SECONDS = 1.0


@dataclass(frozen=True)
class Node:
    """One SuperNode: the folders of its client's data and of its private state, as given in `--node-config`."""

    data: Path
    state: Path

    def config(self) -> dict[str, Value]:
        """Return the node's configuration as the ClientApp sees it."""
        return {"data": str(self.data.resolve()), "state": str(self.state.resolve())}


@dataclass
class LocalDeployment:
    """Context manager that starts a deployment on entry and ends all its processes on exit.

    Attributes:
        folder: work folder; emptied first if it holds an earlier deployment. `logs/` holds one log per process.
        nodes: the SuperNodes, numbered from 0.
        app: module with the apps `server` and `client`, importable in this environment.
    """

    folder: Path
    nodes: Sequence[Node]
    app: str = APP
    port: int = field(default=0, init=False)
    certificates: Certificates = field(init=False)
    processes: Processes = field(init=False)
    flower: FlowerCommand = field(init=False)
    _ports: dict[str, int] = field(default_factory=dict, init=False)
    _node: dict[int, Process] = field(default_factory=dict, init=False)
    _superlink: Process | None = field(default=None, init=False)

    def __enter__(self) -> "LocalDeployment":
        self.folder = self.folder.resolve()
        _prepare_folder(self.folder)
        home = self.folder / "flwr"
        self.processes = Processes(self.folder / "logs", environment(home))
        self.flower = FlowerCommand(home, self.processes.full_environment())
        self.port = free_port(())
        try:
            self.certificates = make_certificates(self.folder / "tls")
            self.flower.connect(self.address(), self.certificates.authority)
            for number in range(len(self.nodes)):
                make_node_key(self.key(number))
            self._start_superlink()
            self._start_nodes()
        except BaseException:
            self._end_quickly()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.processes.end()
        else:
            self._end_quickly()

    def _end_quickly(self) -> None:
        """End all processes within seconds, since a user or batch system waits; nothing is lost, as after `kill -9`."""
        self.processes.grace = FAST_SHUTDOWN_SECONDS
        self.processes.end()

    def key(self, number: int) -> Path:
        """Return the path of a node's private key."""
        return self.folder / "keys" / f"node-{number}"

    def address(self) -> str:
        """Return host and port of the SuperLink."""
        return f"127.0.0.1:{self.port}"

    def _start_superlink(self) -> None:
        """Start the SuperLink and register the nodes' keys.

        Its state is kept in memory: on disk (`--database`), Flower 1.41 loses messages because the database is locked
        when several nodes answer at once.
        """
        tls = self.certificates
        command = [
            sys.executable, "-m", "pilot.deployment.superlink", "--host", "127.0.0.1", "--port", str(self.port),
            "--ssl-ca-certfile", str(tls.authority), "--ssl-certfile", str(tls.certificate),
            "--ssl-keyfile", str(tls.key), "--enable-supernode-auth", "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        self._superlink = self.processes.start("superlink", command)
        self._wait_until(lambda: _listens(self.port), "the SuperLink to listen", [self._superlink])
        self.flower.register([self.key(number).with_suffix(".pub") for number in range(len(self.nodes))])

    def _start_nodes(self) -> None:
        seen = {number: len(node.lines()) for number, node in self._node.items()}
        self._node = {number: self._launch_node(number) for number in range(len(self.nodes))}
        nodes = [(node, seen.get(number, 0)) for number, node in self._node.items()]
        self._wait_until(
            lambda: all(_node_id(node, first) for node, first in nodes), "the nodes to connect", [*self._node.values()]
        )

    def _launch_node(self, number: int) -> Process:
        return self._launch(f"node-{number}", number, self.key(number), self.certificates.authority)

    def _launch(self, name: str, number: int, key: Path | None, authority: Path) -> Process:
        config = self.folder / "nodes" / f"node-{number}.toml"
        write_toml(config, self.nodes[number].config())
        port = self._ports[name] = free_port([self.port, *self._ports.values()])
        command = [
            "flower-supernode", "--superlink", self.address(), "--root-certificates", str(authority),
            *(["--auth-supernode-private-key", str(key)] if key else []),
            "--host", "127.0.0.1", "--port", str(port), "--node-config", str(config),
        ]  # fmt: skip
        return self.processes.start(name, command, {"FLWR_HOME": str(self.folder / "nodes" / name)})

    def run(self, config: Mapping[str, Value], show: Callable[[str], None]) -> None:
        """Submit a run, pass on the ServerApp's log, and wait for the run to end.

        Args:
            config: the run configuration.
            show: called with each line of the log.

        Raises:
            UserError: the run did not complete; the message says where the logs are.
        """
        try:
            status = self.follow(self.submit(config), show)
        except UserError as error:
            raise UserError(f"{error} {self._log_summary()}") from error
        if not status.completed:
            raise UserError(f"the run ended as {status.status} ({status.details}). {self._log_summary()}")

    def submit(self, config: Mapping[str, Value]) -> str:
        """Submit a run and return its id without waiting."""
        return self.flower.submit(self.folder / "app", config, self.app)

    def follow(self, run: str, show: Callable[[str], None]) -> RunStatus:
        """Pass the ServerApp's log to `show` until the run ends; return its status."""
        return self.flower.follow(run, show)

    def _wait_until(self, ready: Callable[[], bool], what: str, processes: Sequence[Process]) -> None:
        until = time.monotonic() + START_SECONDS
        while not ready():
            if time.monotonic() > until or not all(process.alive for process in processes):
                raise UserError(f"failed while waiting for {what}. {self._log_summary()}")
            time.sleep(0.1)

    def _log_summary(self) -> str:
        """Describe where the logs are, and give the last error lines of each process that has ended."""
        ended = [
            f"{each.name} has ended: {each.last_error_lines()}" for each in self.processes.started if not each.alive
        ]
        return " ".join([f"The logs are in {self.processes.folder}.", *ended])


def _prepare_folder(folder: Path) -> None:
    """Remove an earlier deployment from `folder`; refuse a folder with other content."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise UserError(f"{folder}: neither empty nor the folder of an earlier deployment. Choose another folder.")
        remove_folder(folder)
    write_text(folder / MARKER, "Work folder of a deployment; the next one empties it.\n")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _node_id(node: Process, first_line: int = 0) -> str | None:
    """Return Flower's id of a connected node from its log; None if it has not connected."""
    lines: Iterable[str] = node.lines()[first_line:]
    return next((line.rpartition(" ")[2] for line in lines if "SuperNode ID:" in line), None)
