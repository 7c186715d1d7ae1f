"""Time, memory and written bytes of a command in a fresh process, read from `/proc` while it runs."""

import contextlib
import resource
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pilot.bench.scale.measure import ONE_THREAD, PROC, memory_of
from pilot.errors import UserError
from pilot.io.processes import Processes

INTERVAL = 0.02
"""Seconds between two samples; what a command does after the last one is missing."""


@dataclass(frozen=True)
class CommandCost:
    """Cost of a command's process, without its descendants.

    The largest anonymous and file-backed parts may be of different moments, so that their sum may exceed the peak.

    Attributes:
        seconds: wall time, start-up included.
        cpu_seconds: CPU time; that of descendants is included.
        peak_bytes: largest resident memory.
        anonymous_bytes: largest part of it that no file backs, such as the heap.
        file_bytes: largest part that files back: libraries and memory-mapped files.
        written_bytes: bytes given to the system for writing, temporary files included.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    anonymous_bytes: int
    file_bytes: int
    written_bytes: int


MEASURES = tuple(field.name for field in fields(CommandCost))


def measure_command(command: Sequence[str], folder: Path) -> CommandCost:
    """Run a command with one thread; its output goes to `output.log` in `folder`.

    Raises:
        UserError: the system is not Linux, or the command failed; the message quotes its last error.
    """
    if not (PROC / "self" / "status").exists():
        raise UserError(f"{PROC}/self/status: missing. Memory of a command is measured on Linux only.")
    programs, largest = Processes(folder, ONE_THREAD), dict[str, int]()
    before, began = _cpu_seconds(), time.perf_counter()
    process = programs.start("output", command)
    try:
        while process.alive:
            _sample(process.popen.pid, largest)
            time.sleep(INTERVAL)
        seconds = time.perf_counter() - began
    finally:
        programs.end()
    if code := process.popen.returncode:
        raise UserError(f"{shlex.join(command)}: failed (exit status {code}): {process.last_error_lines()}")
    sizes = (largest.get(name, 0) for name in ("VmHWM", "RssAnon", "RssFile", "wchar"))
    return CommandCost(seconds, _cpu_seconds() - before, *sizes)


def _sample(process: int, largest: dict[str, int]) -> None:
    """Raise every value in `largest` to that of this moment; do nothing if the process has ended."""
    with contextlib.suppress(OSError):
        lines = (PROC / str(process) / "io").read_text().splitlines()
        written = {name: int(value) for name, value in (line.split(": ") for line in lines) if name == "wchar"}
        for name, value in (memory_of(process) | written).items():
            largest[name] = max(value, largest.get(name, 0))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
