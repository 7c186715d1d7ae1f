"""Time and peak memory of a piece of work, each in a fresh process. Memory is Linux's count of resident pages."""

import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pilot.errors import UserError

STATUS, CLEAR_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Cost:
    """Of a piece of work.

    Attributes:
        seconds: wall time.
        cpu_seconds: time that this process computed; beside other processes on few cores, the one to compare.
        peak_bytes: by how much the process grew at most.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int

    def to_json(self) -> dict[str, float]:
        """All fields."""
        return asdict(self)


def measured(work: Callable[[], Any]) -> tuple[Any, Cost]:
    """What `work` returns, and what it cost.

    Raises:
        UserError: not on Linux.
    """
    _give_back()
    try:
        CLEAR_PEAK.write_text("5")  # VmHWM starts again at what is resident now
    except OSError as error:
        raise UserError(f"{CLEAR_PEAK}: cannot be written ({error.strerror}). Peak memory needs Linux.") from error
    before, began, began_cpu = _status("VmRSS"), time.perf_counter(), time.process_time()
    result = work()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return result, Cost(seconds, cpu_seconds, max(0, _status("VmHWM") - before))


def run_fresh(job: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a job (jobs.py) in a process of its own, with one thread.

    Raises:
        UserError: the process failed; its last lines are quoted.
    """
    command = [sys.executable, "-m", "pilot.bench.scale.jobs", json.dumps(job)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise UserError(f"bench federation: {job['name']} failed (exit status {done.returncode}):\n{lines}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def slope(counts: list[int], values: list[float]) -> float:
    """Exponent p of the least-squares fit of values = c * counts ** p in logarithms.

    What is too small to be measured counts as a thousandth, since 0 has no logarithm.
    """
    return float(np.polyfit(np.log(counts), np.log(np.maximum(values, 1e-3)), 1)[0])


def machine() -> dict[str, Any]:
    """What times depend on."""
    names = {line.split(":", 1)[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")}
    return {
        "processor": ", ".join(sorted(names)) or platform.processor(),
        "cores": os.cpu_count(),
        "threads": 1,
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy")},
    }


def _give_back() -> None:
    """Garbage, and freed memory that the C library keeps, would hide as much of what the work needs."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(field: str) -> int:
    """Bytes of a field of `/proc/self/status`, which counts in kB of 1024."""
    line = next(line for line in _lines(STATUS) if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
