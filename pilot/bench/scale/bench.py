"""`pilot-bench bench federation`: the jobs, each in a separate process, and their report."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pilot.bench.scale.measure import machine, run_fresh, slope

Advance = Callable[[int, int], None]
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Sizes:
    """Sizes to measure; the defaults take about ten minutes on one core.

    Attributes:
        averaging_clients, averaging_parameters: clients of a round of FedAvg, and numbers in each update.
        small_clients, small_parameters: the same with updates so small that the memory kept per client is visible.
        ata_clients, ata_parameters, ata_memory: clients of ATA in blocks, numbers in each adapter, bound in bytes.
        recall_clients, recall_parameters: clients of the search from sketches, and numbers in each adapter.
        gaussian_parameters: numbers in each adapter of the case without structure.
        sweep_clients, sweep_parameters, sweep_noise: the same search at other shares of noise.
        noise: share of the variance within a task that is noise, in the main case.
        sketch_sizes, overfetches: settings for which recall is reported.
        chosen_size, chosen_overfetch: the setting that is run with exact re-ranking.
        search_clients: clients of the search in sketches alone.
        simulation_clients, simulation_parameters, simulation_rounds: Flower's simulation of clients that do not train.
        memory: bound in bytes of the searches for neighbours.
    """

    averaging_clients: tuple[int, ...] = (9, 90, 900)
    averaging_parameters: int = 10_000_000
    small_clients: tuple[int, ...] = (1_000, 10_000)
    small_parameters: int = 1_000
    ata_clients: tuple[int, ...] = (9, 30, 90, 300, 900)
    ata_parameters: int = 1_000_000
    ata_memory: int = 1024 * MEBIBYTE
    recall_clients: int = 10_000
    recall_parameters: int = 50_000
    gaussian_parameters: int = 10_000
    sweep_clients: int = 2_000
    sweep_parameters: int = 16_384
    sweep_noise: tuple[float, ...] = (0.5, 0.8)
    noise: float = 0.2
    sketch_sizes: tuple[int, ...] = (64, 128, 256)
    overfetches: tuple[int, ...] = (1, 4, 8, 16, 32)
    chosen_size: int = 256
    chosen_overfetch: int = 16
    search_clients: tuple[int, ...] = (2_500, 5_000, 10_000, 20_000)
    simulation_clients: tuple[int, ...] = (9, 90)
    simulation_parameters: int = 312_500
    simulation_rounds: int = 6
    memory: int = 2048 * MEBIBYTE


QUICK = Sizes(
    averaging_clients=(3, 6, 12), averaging_parameters=100_000, small_clients=(50, 200), small_parameters=100,
    ata_clients=(5, 10, 20), ata_parameters=20_000, ata_memory=3 * MEBIBYTE,
    recall_clients=150, recall_parameters=2_000, gaussian_parameters=500, sweep_clients=60, sweep_parameters=500,
    sweep_noise=(0.5,), sketch_sizes=(32, 64), overfetches=(1, 8), chosen_size=64, chosen_overfetch=8,
    search_clients=(100, 200), memory=16 * MEBIBYTE, simulation_clients=(3,), simulation_parameters=1_000,
    simulation_rounds=3,
)  # fmt: skip
"""Sizes that take seconds: a smoke test, not a measurement."""


def bench_federation(
    sizes: Sizes, advance: Advance, run: Callable[[Mapping[str, Any]], dict[str, Any]] = run_fresh
) -> dict[str, Any]:
    """Run all jobs.

    Args:
        sizes: sizes to measure.
        advance: called with the finished and total numbers of jobs.
        run: function that runs a job.

    Returns:
        The content of `results/bench/federation.json`.

    Raises:
        UserError: a job failed, or this is not Linux.
    """
    with tempfile.TemporaryDirectory() as folder:
        jobs = _jobs(sizes, folder)
        total, done = sum(len(group) for group in jobs.values()), 0
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
        for name, group in jobs.items():
            for job in group:
                results[name].append(run(job))
                done += 1
                advance(done, total)
    del results["write"]
    return {"machine": machine(), "sizes": asdict(sizes), **results, "fits": _fits(results)}


def _jobs(sizes: Sizes, folder: str) -> dict[str, list[dict[str, Any]]]:
    """List the jobs by section of the report."""
    search = {
        "name": "recall", "sizes": sizes.sketch_sizes, "overfetches": sizes.overfetches, "memory": sizes.memory,
        "chosen": {"size": sizes.chosen_size, "overfetch": sizes.chosen_overfetch},
    }  # fmt: skip
    many = search | {"clients": sizes.recall_clients}
    few = search | {"clients": sizes.sweep_clients, "width": sizes.sweep_parameters}
    return {
        "averaging": [
            {"name": "averaging", "clients": clients, "width": sizes.averaging_parameters}
            for clients in sizes.averaging_clients
        ],
        "small_updates": [
            {"name": "averaging", "clients": clients, "width": sizes.small_parameters}
            for clients in sizes.small_clients
        ],
        "write": [
            {"name": "write", "folder": folder, "clients": max(sizes.ata_clients), "width": sizes.ata_parameters,
             "noise": sizes.noise}
        ],
        "ata": [
            {"name": "ata", "folder": folder, "clients": clients, "width": sizes.ata_parameters,
             "memory": sizes.ata_memory}
            for clients in sizes.ata_clients
        ],
        "recall": [
            many | {"width": sizes.recall_parameters, "noise": sizes.noise},
            *(few | {"noise": noise} for noise in sizes.sweep_noise),
            many | {"width": sizes.gaussian_parameters, "noise": None},
        ],
        "search": [
            {"name": "search", "clients": clients, "size": sizes.chosen_size, "overfetch": sizes.chosen_overfetch,
             "memory": sizes.memory}
            for clients in sizes.search_clients
        ],
        "simulation": [
            {"name": "simulation", "clients": clients, "width": sizes.simulation_parameters,
             "rounds": sizes.simulation_rounds}
            for clients in sizes.simulation_clients
        ],
    }  # fmt: skip


def _fits(results: Mapping[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Fit exponents of CPU time and memory over clients, and the bytes that an averaging server keeps per client."""
    few, *_, many = results["small_updates"]
    one_more = (many["peak_bytes"] - few["peak_bytes"]) / (many["clients"] - few["clients"])
    return {
        "averaging_time_exponent": _exponent(results["averaging"]),
        "averaging_memory_exponent": slope(*_columns(results["averaging"], "peak_bytes")),
        "bookkeeping_bytes_per_client": one_more,
        "ata_time_exponent": _exponent(results["ata"]),
        "ata_time_exponent_last": _exponent(results["ata"][-2:]),
        "search_time_exponent": _exponent(results["search"]),
        "search_time_exponent_last": _exponent(results["search"][-2:]),
    }


def _exponent(rows: list[dict[str, Any]]) -> float:
    return slope(*_columns(rows, "cpu_seconds"))


def _columns(rows: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    return [row["clients"] for row in rows], [row[name] for row in rows]
