"""Ray in a separate process, which always ends together with everything that it started.

Flower's simulation has threads, and Ray has daemons, that neither an exception nor a signal ends within a bounded time.
So the user's command runs neither of them: `run_in_process` starts `python -m MODULE FOLDER`, reads the messages that
`run_and_exit` writes there, and kills the process with all its descendants when it has answered or failed, when it or
one of Ray's daemons has died, on Ctrl-C and on SIGTERM. Nothing is lost by killing: files are complete or absent.
"""

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pilot.errors import UserError
from pilot.io.atomic import read_json, remove, write_json
from pilot.io.processes import Process, Processes

SendMessage = Callable[[str, Any], None]
"""Function that is called with the kind of a message and a JSON value."""

ARGUMENT, MESSAGES = "argument.json", "messages.jsonl"
RESULT, ERROR, FAILURE = "result", "error", "failure"
POLL_SECONDS = 0.1
SECONDS_BETWEEN_CHECKS = 2.0
SHUTDOWN_SECONDS = 15.0
"""How long a daemon must be gone to count as dead: after an error, Ray ends its daemons before the error arrives."""
DAEMONS = ("/raylet/raylet ", "/gcs/gcs_server ")
"""Parts of the command lines of the programs without which Ray waits forever."""
TERMINATED = 128 + signal.SIGTERM

SESSION = "session_2026-11-29_08-47-11_123456_1234567/sockets/plasma_store"
"""The longest path that Ray creates below its folder."""
LONGEST_SOCKET = 107 if sys.platform == "linux" else 103
"""Maximum length of a Unix socket's path, in bytes."""
PREFIX = "pilot-"
LONGEST_FOLDER = LONGEST_SOCKET - len(f"/{PREFIX}12345678/{SESSION}")


def run_in_process(module: str, argument: Any, log: Path, on_message: SendMessage) -> Any:
    """Run a module that calls `run_and_exit`; return its result once the process and its descendants have ended.

    Args:
        module: name of the module.
        argument: a JSON value that is passed to it.
        log: file for the output of the process, Flower and Ray; replaced.
        on_message: called with each message before the result.

    Raises:
        UserError: the module raised an error, the process or one of Ray's daemons died, or no folder has a path that is
            short enough for Ray's sockets.
        SystemExit: the process was ended by SIGTERM; the code is the shell's for that signal.
    """
    with _short_folder() as work:
        write_json(work / ARGUMENT, argument)
        remove(log)
        processes = Processes(log.parent, {}, grace=0.0)
        try:
            with (work / MESSAGES).open("w+b") as messages:
                process = processes.start(log.stem, [sys.executable, "-m", module, str(work)])
                return _follow(process, _DaemonMonitor(processes), messages, on_message)
        finally:
            processes.end()


def run_and_exit(work: str, run: Callable[[Any, Path, SendMessage], None]) -> NoReturn:
    """Run a simulation in the process that `run_in_process` started, then exit at once, even if threads still run.

    Args:
        work: folder of the argument and the messages.
        run: called with the argument, the folder, which has a short path, and a function that sends a message; its
            server calls `send_result`, so that the result does not wait for Ray and Flower to end.
    """
    folder, code = Path(work), 0
    with (folder / MESSAGES).open("ab", buffering=0) as messages:

        def send(kind: str, value: Any) -> None:
            messages.write(json.dumps([kind, value]).encode() + b"\n")

        try:
            send_result(lambda: run(read_json(folder / ARGUMENT), folder, send), send)
        except (SystemExit, KeyboardInterrupt):  # Ray turns SIGTERM into this
            code = TERMINATED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def send_result(compute: Callable[[], Any], send: SendMessage) -> None:
    """Send the result of `compute`, or its error; only the first such message counts."""
    try:
        send(RESULT, compute())
    except UserError as error:
        send(ERROR, str(error))
    except Exception as error:
        traceback.print_exc()
        send(FAILURE, _root_cause(error))


@dataclass
class _DaemonMonitor:
    """Monitor that detects a dead Ray daemon, unless Ray is shutting down after an error.

    A daemon is identified by its command line, not by its process id: `raylet` forks, and its forks may end before it.
    """

    processes: Processes
    seen: dict[str, float] = field(default_factory=dict)
    last_check: float = 0.0

    def check(self) -> None:
        """Look which daemons are running."""
        commands, self.last_check = list(self.processes.running().values()), time.monotonic()
        self.seen |= {name: self.last_check for name in DAEMONS if any(name in command for command in commands)}

    def missing(self) -> bool:
        """Return whether a daemon that was running is not running now."""
        self.check()
        return any(when < self.last_check for when in self.seen.values())

    def dead(self) -> str:
        """Return the name of a daemon that has been gone for `SHUTDOWN_SECONDS`; empty if there is none."""
        if time.monotonic() - self.last_check >= SECONDS_BETWEEN_CHECKS:
            self.check()
        long_gone = (name for name, when in self.seen.items() if self.last_check - when >= SHUTDOWN_SECONDS)
        return next(long_gone, "").strip().rpartition("/")[2]


def _follow(process: Process, daemons: _DaemonMonitor, messages: BinaryIO, on_message: SendMessage) -> Any:
    """Pass messages to `on_message` until one of them is the result; return it or raise its error.

    What a simulation says after one of its daemons has died is a consequence of that: it stays in the log.
    """
    while True:
        dead, alive = daemons.dead(), process.alive
        for kind, value in _new_messages(messages):
            if kind == RESULT:
                return value
            if kind == ERROR:
                raise UserError(value)
            if kind == FAILURE:
                raise UserError(f"Flower's simulation failed: {value}. The log is {process.log}.")
            if not daemons.missing():
                on_message(kind, value)
        if not alive:
            raise _end_of(process)
        if dead:
            raise UserError(f"Flower's simulation failed: Ray's {dead} process died. The log is {process.log}.")
        time.sleep(POLL_SECONDS)


def _end_of(process: Process) -> BaseException:
    """Return the exception to raise for a process that ended without a result."""
    code = process.popen.returncode
    if code in (-signal.SIGTERM, TERMINATED):
        return SystemExit(TERMINATED)
    output = process.last_error_lines() or "no output"
    hint = " The system kills processes in this way when it runs out of memory." if code == -signal.SIGKILL else ""
    return UserError(f"Flower's simulation ended with exit code {code}: {output}.{hint} The log is {process.log}.")


def _new_messages(file: BinaryIO) -> Iterator[Any]:
    """Yield the messages written since the last call, complete lines only."""
    while (line := file.readline()).endswith(b"\n"):
        yield json.loads(line)
    file.seek(-len(line), os.SEEK_CUR)


def _root_cause(error: BaseException) -> str:
    """Return the type of an error's root cause and the first line of its text."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['(no text)'])[0].rstrip('.')}"


@contextmanager
def _short_folder() -> Iterator[Path]:
    """Yield a temporary folder with a path short enough for Ray's sockets: in `TMPDIR`, or else in /tmp."""
    try:
        usual = tempfile.gettempdir()
    except OSError as error:
        raise UserError(f"TMPDIR: {error.strerror}. Set it to a writable folder.") from error
    for base in (usual, "/tmp"):
        if len(os.fsencode(base)) <= LONGEST_FOLDER and os.access(base, os.W_OK | os.X_OK):
            with tempfile.TemporaryDirectory(prefix=PREFIX, dir=base, ignore_cleanup_errors=True) as folder:
                yield Path(folder)
            return
    raise UserError(
        f"TMPDIR: the path {usual} is too long for Ray's sockets. Set it to a writable folder whose path has at most "
        f"{LONGEST_FOLDER} bytes."
    )
