"""Speed of this processor's matrix products, and the time of `scenario2` estimated from it and two measured runs.

CPU time is modelled as a + w / r: r is the rate of one thread's matrix products, w the work that scales with it, a the
time that does not (data, tokenising, Java, figures). a and w follow from two whole runs of scenario2, with and without
AVX-512 (docs/notes/pipeline.md); another kind of processor may fall outside the range.
"""

import time
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
MAX_WALL_SECONDS = 2.0
INSTRUCTIONS = {"AVX2": "avx2", "AVX-512": "avx512f", "AMX": "amx_tile"}
SHAPES = ((800, 128, 128), (800, 128, 256), (800, 256, 128))
"""Rows, inner dimension, columns of matrix products in a training step of the embedded profile."""
SLOW, FAST = (80.0, 3021 / 60), (157.0, 1985 / 60)
"""GFLOP/s of a thread, CPU minutes of scenario2: an Intel Xeon told to compute with AVX2 only, and with AVX-512."""
SLOWDOWN = 1.3
"""Slowdown of the same step when other tenants use the machine: 34 to 40 ms, 35 to 46 ms."""
BUSY_SHARE = 0.933
"""Share of two cores' time that the jobs used: 1,985 s of CPU in 1,064 s."""
SERIAL_SHARE = 257 / 1985
"""Share of all work that cannot run in parallel: data, partition, features, a run of Pilot, scores, tables, report."""


@dataclass(frozen=True)
class Estimate:
    """CPU minutes of scenario2, and the range of minutes on this machine's cores (least, most)."""

    cpu_minutes: float
    minutes: tuple[float, float]


def estimate(gflops: float, cores: int) -> Estimate:
    """Estimate the time of `snakemake --cores all scenario2` with the embedded profile, without the installation.

    Args:
        gflops: 10^9 operations per second of one thread, from `measure_rate`.
        cores: number of cores that Snakemake may use, at least 1.
    """
    work = (SLOW[1] - FAST[1]) / (1 / SLOW[0] - 1 / FAST[0])
    cpu_minutes = FAST[1] - work / FAST[0] + work / gflops
    minutes = cpu_minutes * max(1 / (BUSY_SHARE * cores), SERIAL_SHARE)
    return Estimate(cpu_minutes, (minutes / SLOWDOWN, minutes * SLOWDOWN))


def processor_features(cpuinfo: Path = CPUINFO) -> tuple[str, list[str]]:
    """Return the processor's name and which of `INSTRUCTIONS` it has; both are empty if the system does not say."""
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return "", []
    values = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    flags = values.get("flags", "").split()
    return values.get("model name", ""), [name for name, flag in INSTRUCTIONS.items() if flag in flags]


def measure_rate(seconds: float = 0.3) -> float:
    """Measure the float32 GFLOP/s of one thread by CPU time, less affected by other processes; return the best round.

    Args:
        seconds: CPU time to measure; it stops after `MAX_WALL_SECONDS` of wall time in any case.
    """
    import torch

    from pilot.backbone.numerics import fast_matmul_precision
    from pilot.bench.kernels.products import Product, flops, make_product_runner

    products = [Product(*shape, times=4) for shape in SHAPES]
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(fast_matmul_precision())
    try:
        work = make_product_runner(products)
        work()
        least, began, started = float("inf"), time.monotonic(), time.thread_time()
        while time.thread_time() - started < seconds and time.monotonic() - began < MAX_WALL_SECONDS:
            before = time.thread_time()
            work()
            least = min(least, time.thread_time() - before)
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
    return flops(products) / least / 1e9
