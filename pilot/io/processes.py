"""Groups of processes that are ended together with all their descendants."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilot.errors import UserError

MARK = "PILOT_PROCESSES"
"""Environment variable that marks started processes and their descendants, so that they can be found."""

GRACE_SECONDS = 8.0
KILL_SECONDS = 5.0
"""Maximum time that the kernel may take to end a killed process."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class Process:
    """A started program and its log file."""

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path

    @property
    def alive(self) -> bool:
        """True while the program runs."""
        return self.popen.poll() is None

    def kill(self) -> None:
        """Kill the program with SIGKILL, but not its children."""
        self.popen.kill()
        self.popen.wait()

    def lines(self) -> list[str]:
        """Return the program's log lines so far, without colour codes."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return without_colours(text).splitlines()

    def last_error_lines(self) -> str:
        """Return the program's log lines from the last error on."""
        return last_error_lines(self.lines())


@dataclass
class Processes:
    """Programs that are started with a log file each, and ended together.

    Attributes:
        folder: folder of the logs.
        environment: variables that the programs get in addition to this process's environment.
        grace: seconds that a program has to end before it is killed.
        started: programs started so far and not yet ended by `end`.
        mark: value in the environment of these processes and of no others.
    """

    folder: Path
    environment: Mapping[str, str]
    grace: float = GRACE_SECONDS
    started: list[Process] = field(default_factory=list, init=False)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)

    def start(self, name: str, command: Sequence[str], more: Mapping[str, str] | None = None) -> Process:
        """Start `command` in a new session and append its output to `<name>.log`.

        `more` has variables for this program only. On Linux the program is killed when this process ends in any way.

        Raises:
            UserError: the log cannot be written.
        """
        path = self.folder / f"{name}.log"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            opened = path.open("ab")
        except OSError as error:
            raise UserError(f"{path}: cannot write here ({error.strerror}). Choose another folder.") from error
        with opened as log:
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
        """Return the result of `local_environment`, updated with `environment` and the mark."""
        return {**local_environment(), **self.environment, MARK: self.mark}

    def running(self) -> dict[int, str]:
        """Return the command lines of these processes and their descendants, by process id (Linux)."""
        wanted = f"{MARK}={self.mark}".encode()
        return {
            process: command
            for process, command, environment in all_processes()
            if wanted in environment and process != os.getpid()
        }

    def end(self) -> None:
        """Terminate all programs, the first one last because the others sign off from it; wait, then kill the rest.

        Ctrl-C, SIGTERM and SIGHUP are ignored meanwhile: either they caused this, or nothing is left to stop.
        """
        with _uninterrupted():
            for wave in (self.started[1:], self.started[:1]):
                for process in wave:
                    if process.alive:
                        _signal_group(process.popen.pid, signal.SIGTERM)
                until = time.monotonic() + self.grace
                while time.monotonic() < until and any(process.alive for process in wave):
                    time.sleep(0.1)
            for process in self.started:
                if process.alive:
                    _signal_group(process.popen.pid, signal.SIGKILL)
                    process.popen.wait()
            self._end_orphans()
            self.started.clear()

    def _end_orphans(self) -> None:
        """End descendants that run in other sessions."""
        for number, seconds in ((signal.SIGTERM, self.grace), (signal.SIGKILL, KILL_SECONDS)):
            until, told = time.monotonic() + seconds, set[int]()
            while left := self.running():
                for process in left.keys() - told:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, number)
                told |= left.keys()
                if time.monotonic() >= until:
                    break
                time.sleep(0.1)


def local_environment() -> dict[str, str]:
    """Return this process's environment without variables that redirect connections between local processes.

    These are the proxies in upper and lower case (`http_proxy`, `ALL_PROXY`, gRPC's `grpc_proxy`), and the address of a
    Ray cluster, since a simulation starts its own.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name != "RAY_ADDRESS"
    }


def end_with_parent() -> None:
    """Have the kernel kill this program when its parent ends in any way (Linux only); use as `preexec_fn`."""
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def without_colours(text: str) -> str:
    """Remove a terminal's colour codes from text."""
    first, *parts = text.split("\x1b[")
    return first + "".join(part.partition("m")[2] for part in parts)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C, SIGTERM and SIGHUP in the main thread, the only one that can ignore and receive them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def free_port(taken: Collection[int]) -> int:
    """Find a port of the loopback interface that is unused and not in `taken`.

    The port is below the range that systems use for outgoing connections, so that none of them takes it before its
    server starts. The search starts at a number that depends on the process id.

    Raises:
        UserError: all ports are in use.
    """
    first = 20000 + os.getpid() * 31 % 10000
    for port in (*range(first, 32000), *range(20000, first)):
        if port not in taken:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
                return port
    raise UserError("127.0.0.1: no free port between 20000 and 32000. Stop a program that listens on one.")


def last_error_lines(lines: Sequence[str]) -> str:
    """Join up to four lines of a log, from the last error on; without an error, return the last line."""
    errors = [place for place, line in enumerate(lines) if "ERROR" in line or "Error" in line]
    return " ".join(line.strip() for line in lines[errors[-1] if errors else -1 :][:4])


def all_processes() -> Iterator[tuple[int, str, list[bytes]]]:
    """Yield id, command line and environment of all processes that are readable in /proc; nothing without /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if command:
                yield int(folder.name), command, environment


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
