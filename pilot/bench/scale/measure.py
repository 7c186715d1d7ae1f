"""Time and peak memory of functions, and jobs in fresh processes. Memory is Linux's count of resident pages."""

import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pilot.errors import UserError

PROC = Path("/proc")
CLEAR_PEAK = PROC / "self" / "clear_refs"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Environment of measured processes."""


@dataclass(frozen=True)
class Cost:
    """Cost of a function call.

    Attributes:
        seconds: wall time.
        cpu_seconds: CPU time of this process; the time to compare when other processes share few cores.
        peak_bytes: largest growth of the process's memory.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure_cost(work: Callable[[], Any]) -> tuple[Any, Cost]:
    """Call `work`; return its result and its cost.

    Raises:
        UserError: the system is not Linux.
    """
    _release_memory()
    try:
        CLEAR_PEAK.write_text("5")  # resets VmHWM to the current resident size
    except OSError as error:
        raise UserError(
            f"{CLEAR_PEAK}: cannot be written ({error.strerror}). Peak memory is measured on Linux only."
        ) from error
    before, began, began_cpu = memory_of("self")["VmRSS"], time.perf_counter(), time.process_time()
    result = work()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return result, Cost(seconds, cpu_seconds, max(0, memory_of("self")["VmHWM"] - before))


def run_fresh(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a job (jobs.py) in a fresh process with one thread; return its result.

    Raises:
        UserError: the process failed; the message quotes its last lines.
    """
    command = [sys.executable, "-m", "pilot.bench.scale.jobs", json.dumps(job)]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    if done.returncode:
        lines = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise UserError(f"bench federation: {job['name']} failed (exit status {done.returncode}):\n{lines}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def slope(counts: list[int], values: list[float]) -> float:
    """Return the exponent p of the least-squares fit of values = c * counts ** p in logarithms.

    Values below a thousandth count as a thousandth, since 0 has no logarithm.
    """
    return float(np.polyfit(np.log(counts), np.log(np.maximum(values, 1e-3)), 1)[0])


def machine() -> dict[str, Any]:
    """Return the hardware, system and package versions on which times depend."""
    names = {line.split(":", 1)[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")}
    return {
        "processor": ", ".join(sorted(names)) or platform.processor(),
        "cores": os.cpu_count(),
        "threads": 1,
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy")},
    }


def memory_of(process: int | str) -> dict[str, int]:
    """Read the memory fields of `/proc/<process>/status` in bytes; the file counts in kB of 1024.

    Raises:
        OSError: there is no such process.
    """
    fields = (line.split() for line in (PROC / str(process) / "status").read_text().splitlines())
    return {name.rstrip(":"): 1024 * int(rest[0]) for name, *rest in fields if rest[1:] == ["kB"]}


def _release_memory() -> None:
    """Collect garbage and return freed memory to the system, since it would hide part of the work's memory."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
