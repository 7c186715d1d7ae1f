"""A simulator's run as processes: how long it takes, its CPU time and memory over time, and its end.

Processes belong to a run if their environment names its job, wherever they hang in the tree of processes: Ray's do not
stay below the one that started them. CPU time and memory are read from `/proc` twice a second, so the last half second
of a process that has ended is missing.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from pilot.bench.rivals.job import VARIABLE
from pilot.bench.scale.measure import ONE_THREAD, PROC
from pilot.errors import UserError
from pilot.io.processes import all_processes

INTERVAL = 0.5
TICKS = os.sysconf("SC_CLK_TCK")
SETTINGS = ONE_THREAD | {
    "HF_HUB_OFFLINE": "1", "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "WANDB_MODE": "disabled",
}  # fmt: skip
"""Environment of every run: one thread of computation per process, and nothing is reported to anyone."""


@dataclass
class Watch:
    """Measurements of a run's processes over time.

    Attributes:
        began: Unix time at which the run was started.
        seconds: wall time of the run.
        peak_bytes: largest sum of their memory at one time, with shared pages counted once (PSS).
    """

    began: float
    seconds: float = 0.0
    peak_bytes: int = 0
    _cpu: list[tuple[float, float]] = field(default_factory=list)
    _last: dict[tuple[int, str], float] = field(default_factory=dict)

    def sample(self, mark: bytes) -> None:
        """Read CPU time and memory of all processes of the run."""
        memory = 0
        for pid in _running(mark):
            with contextlib.suppress(OSError, IndexError, StopIteration, ValueError):  # it may end at any time
                fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
                self._last[pid, fields[19]] = (int(fields[11]) + int(fields[12])) / TICKS
                lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
                memory += 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
        self._cpu.append((time.time(), sum(self._last.values())))
        self.peak_bytes = max(self.peak_bytes, memory)

    def cpu_seconds(self, moment: float) -> float:
        """Return the CPU seconds of all processes up to a Unix time, interpolated between samples."""
        points = [(self.began, 0.0), *self._cpu]
        for (before, low), (after, high) in pairwise(points):
            if moment <= after:
                return low + (high - low) * max(0.0, moment - before) / max(after - before, 1e-9)
        return points[-1][1]


def _running(mark: bytes) -> list[int]:
    """Return the ids of the processes whose environment contains `mark`, `NAME=value`."""
    return [process for process, _, environment in all_processes() if mark in environment]


def run_watched(command: Sequence[str], job_file: Path, path: Sequence[Path], limit: float) -> Watch:
    """Run a command with a job until it ends, then kill what it left behind; its output goes to the job's folder.

    Args:
        command: the program and its arguments.
        job_file: the job; the program runs in its folder.
        path: folders of modules that the program imports.
        limit: seconds after which the run is killed.

    Raises:
        UserError: the system is not Linux, the command failed, or it did not end in time.
    """
    if not (PROC / "self" / "smaps_rollup").exists():
        raise UserError(f"{PROC}/self/smaps_rollup: missing. Memory of several processes is measured on Linux only.")
    mark, output = f"{VARIABLE}={job_file}".encode(), job_file.with_name("output.txt")
    environment = {**os.environ, **SETTINGS, VARIABLE: str(job_file), "PYTHONPATH": os.pathsep.join(map(str, path))}
    with output.open("wb") as file:
        watch, began = Watch(time.time()), time.perf_counter()
        process = subprocess.Popen(
            list(command), cwd=job_file.parent, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        try:
            code = _wait(process, watch, mark, limit)
        finally:
            _kill_all(process, mark)
        watch.seconds = time.perf_counter() - began
    if code is None:
        raise UserError(f"{' '.join(command)}: not finished after {limit:.0f} s. Raise --limit, or use fewer clients.")
    if code:
        lines = "\n".join(output.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:])
        raise UserError(f"{' '.join(command)}: failed (exit status {code}). Its last lines:\n{lines}")
    return watch


def _wait(process: "subprocess.Popen[bytes]", watch: Watch, mark: bytes, limit: float) -> int | None:
    """Sample until the process ends; return its exit status, or None after the limit."""
    ended = threading.Event()
    threading.Thread(target=_set_at_end, args=(process, ended), daemon=True).start()
    end = time.monotonic() + limit
    while not ended.wait(INTERVAL):
        watch.sample(mark)
        if time.monotonic() > end:
            return None
    return process.returncode


def _set_at_end(process: "subprocess.Popen[bytes]", ended: threading.Event) -> None:
    process.wait()
    ended.set()


def _kill_all(process: "subprocess.Popen[bytes]", mark: bytes) -> None:
    """Kill the run's remaining processes, those started meanwhile included."""
    while left := _running(mark):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    process.wait()
