"""Processes that are ended together, with everything that they started."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilot.deployment.children import end_with_parent, without_colours

MARK = "PILOT_DEPLOYMENT"
"""Environment variable by which a deployment finds its processes, also those that its processes started."""

GRACE_SECONDS = 8.0


@dataclass
class Process:
    """A started program and its log file."""

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.popen.poll() is None

    def kill(self) -> None:
        """`kill -9` it, but not what it started."""
        self.popen.kill()
        self.popen.wait()

    def lines(self) -> list[str]:
        """Its log so far, without colours."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return without_colours(text).splitlines()

    def last_words(self) -> str:
        """The lines of its log from the last error on."""
        lines = self.lines()
        errors = [place for place, line in enumerate(lines) if "ERROR" in line or "Error" in line]
        return " ".join(line.strip() for line in lines[errors[-1] if errors else -1 :][:4])


@dataclass
class Processes:
    """Starts programs, each with its own log in `folder`, and ends all of them.

    Attributes:
        folder: where the logs go; its path is the mark of these processes.
        environment: what the programs get beyond this process's environment.
    """

    folder: Path
    environment: Mapping[str, str]
    started: list[Process] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str], more: Mapping[str, str] | None = None) -> Process:
        """Start `command` in a session of its own; its output is appended to `<name>.log`.

        `more` is what its environment has beyond that of all.

        On Linux it is ended if this process ends in any way.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.log"
        with path.open("ab") as log:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.full_environment() | dict(more or {}),
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        process = Process(name, popen, path)
        self.started.append(process)
        return process

    def full_environment(self) -> dict[str, str]:
        """This process's environment, `environment` and the mark."""
        return {**os.environ, **self.environment, MARK: str(self.folder.resolve())}

    def running(self) -> dict[int, str]:
        """Every process of these, also what they started, by id with its command line (Linux)."""
        wanted = f"{MARK}={self.folder.resolve()}".encode()
        return {
            process: command
            for process, command, environment in _processes()
            if wanted in environment and process != os.getpid()
        }

    def end(self) -> None:
        """Ask all to end, the first one last since the others take leave of it; wait, and kill what is left."""
        for wave in (self.started[1:], self.started[:1]):
            for process in wave:
                if process.alive:
                    _signal_group(process.popen.pid, signal.SIGTERM)
            until = time.monotonic() + GRACE_SECONDS
            while time.monotonic() < until and any(process.alive for process in wave):
                time.sleep(0.1)
        for process in self.started:
            if process.alive:
                _signal_group(process.popen.pid, signal.SIGKILL)
                process.popen.wait()
        self._end_orphans()
        self.started.clear()

    def _end_orphans(self) -> None:
        """What the programs started in sessions of their own."""
        until = time.monotonic() + GRACE_SECONDS
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self.running():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
            while number == signal.SIGTERM and time.monotonic() < until and self.running():
                time.sleep(0.1)


def free_port(taken: Collection[int]) -> int:
    """A port of the loopback interface that nobody listens on, and that is not among `taken`.

    It lies below the range from which systems take the ports of outgoing connections, so that none of these takes it
    before its server starts. The search begins at a place that depends on the process.

    Raises:
        OSError: all ports are taken.
    """
    first = 20000 + os.getpid() * 31 % 10000
    for port in (*range(first, 32000), *range(20000, first)):
        if port not in taken:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
                return port
    raise OSError("no free port between 20000 and 32000")


def _processes() -> Iterator[tuple[int, str, list[bytes]]]:
    """Id, command line and environment of the processes that may be looked at; none where there is no /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if command:
                yield int(folder.name), command, environment


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
