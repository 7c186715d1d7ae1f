"""Processes that are ended together, with everything that they started."""

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
"""Environment variable by which processes are found, also those that started processes have started."""

GRACE_SECONDS = 8.0
KILL_SECONDS = 5.0
"""The longest that the kernel may take to end a killed process."""

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
        return last_error_lines(self.lines())


@dataclass
class Processes:
    """Starts programs, each with its own log in `folder`, and ends all of them.

    Attributes:
        folder: where the logs go.
        environment: what the programs get beyond this process's environment.
        grace: seconds in which a program may end by itself before it is killed.
        mark: found in the environment of these processes and of no others.
    """

    folder: Path
    environment: Mapping[str, str]
    grace: float = GRACE_SECONDS
    started: list[Process] = field(default_factory=list, init=False)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)

    def start(self, name: str, command: Sequence[str], more: Mapping[str, str] | None = None) -> Process:
        """Start `command` in a session of its own; its output is appended to `<name>.log`.

        `more` is what its environment has beyond that of all.

        On Linux it is ended if this process ends in any way.

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
        """This process's environment as `local_environment` has it, `environment` and the mark."""
        return {**local_environment(), **self.environment, MARK: self.mark}

    def running(self) -> dict[int, str]:
        """Every process of these, also what they started, by id with its command line (Linux)."""
        wanted = f"{MARK}={self.mark}".encode()
        return {
            process: command
            for process, command, environment in every_process()
            if wanted in environment and process != os.getpid()
        }

    def end(self) -> None:
        """Ask all to end, the first one last since the others take leave of it; wait, and kill what is left.

        Ctrl-C, SIGTERM and SIGHUP are ignored meanwhile, since they have been heard or nothing is left to stop.
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
        """End what the programs started in sessions of their own."""
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
    """Return this process's environment without what leads connections between local processes elsewhere.

    These are the proxies, in any case (`http_proxy`, `ALL_PROXY`, gRPC's `grpc_proxy`), and the address of a Ray
    cluster, since a simulation starts its own.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name != "RAY_ADDRESS"
    }


def end_with_parent() -> None:
    """For `preexec_fn`: on Linux, the program is killed when the process that started it ends in any way."""
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def without_colours(text: str) -> str:
    """Text without a terminal's colour codes."""
    first, *parts = text.split("\x1b[")
    return first + "".join(part.partition("m")[2] for part in parts)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C, SIGTERM and SIGHUP; only the main thread can, and only it hears them."""
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
    """A port of the loopback interface that nobody listens on, and that is not among `taken`.

    It lies below the range from which systems take the ports of outgoing connections, so that none of these takes it
    before its server starts. The search begins at a place that depends on the process.

    Raises:
        UserError: all ports are taken.
    """
    first = 20000 + os.getpid() * 31 % 10000
    for port in (*range(first, 32000), *range(20000, first)):
        if port not in taken:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
                return port
    raise UserError("127.0.0.1: no free port between 20000 and 32000. End a program that listens on one.")


def last_error_lines(lines: Sequence[str], most: int = 4) -> str:
    """The lines of a log from its last error on, at most so many; its last line where no line names an error."""
    errors = [place for place, line in enumerate(lines) if "ERROR" in line or "Error" in line]
    return " ".join(line.strip() for line in lines[errors[-1] if errors else -1 :][:most])


def every_process() -> Iterator[tuple[int, str, list[bytes]]]:
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
