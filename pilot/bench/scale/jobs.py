"""Measured jobs: `python -m pilot.bench.scale.jobs '{"name": ..., ...}'` prints a job's result as a line of JSON."""

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from pilot.bench.scale.measure import measure_cost
from pilot.bench.scale.sketches import approximate_nearest, sketch
from pilot.bench.scale.synthetic import ClusteredRows, FileStates, GaussianRows, write_rows
from pilot.io.seeding import generator
from pilot.methods.blocks import Nearest, StateRows, TensorRows, nearest, rows_per_block
from pilot.methods.text_aggregation import iter_mix, neighbourhoods_from_nearest

NUM_NEIGHBORS = 3
SEED = 0


def averaging(clients: int, width: int) -> dict[str, Any]:
    """Run one round of FedAvg with the actual driver; the transport generates the clients' updates one by one."""
    from pilot.bench.scale.streaming import ShiftedClients

    made = ShiftedClients(clients, width)
    driver, start = made.driver(), made.start()
    progress, cost = measure_cost(lambda: driver.run(start))
    error = made.error(progress.server.shared)
    return {"clients": clients, "parameters": width, "error": error, **vars(cost)}


def write(folder: str, clients: int, width: int, noise: float) -> dict[str, Any]:
    """Write the adapters that `ata` reads to disk."""
    write_rows(ClusteredRows(clients, width, noise, SEED), Path(folder))
    return {"bytes": clients * width * 4}


def ata(folder: str, clients: int, width: int, memory: int) -> dict[str, Any]:
    """Run adaptive text aggregation in blocks, also for few clients, over adapters on disk; drop the mixed adapters."""
    _warm_up()
    states, num_examples = FileStates(Path(folder), clients), [100 + k for k in range(clients)]
    found, cost = measure_cost(lambda: nearest(StateRows(states), NUM_NEIGHBORS, memory))
    neighbourhoods = neighbourhoods_from_nearest(
        found.indices_KM.tolist(), found.distances_KM.tolist(), num_examples, "samples"
    )
    mixed, mix_cost = measure_cost(lambda: sum(1 for _ in iter_mix(states, neighbourhoods)))
    return {
        "clients": mixed, "parameters": width, "memory_bound": memory,
        "rows_per_block": rows_per_block(clients, width, memory), "neighbours": vars(cost),
        "mixing": vars(mix_cost), "peak_bytes": max(cost.peak_bytes, mix_cost.peak_bytes),
        "seconds": cost.seconds + mix_cost.seconds, "cpu_seconds": cost.cpu_seconds + mix_cost.cpu_seconds,
    }  # fmt: skip


def recall(
    clients: int, width: int, noise: float | None, sizes: list[int], overfetches: list[int],
    chosen: Mapping[str, int], memory: int,
) -> dict[str, Any]:  # fmt: skip
    """Compare neighbours found from sketches with the true ones; if `noise` is None, adapters are independent Gaussian.

    For every sketch size and number of candidates, the recall is the share of the true M nearest among the candidates,
    all of which exact re-ranking finds; with an overfetch of 1, the candidates are the sketches' first M. For the
    chosen setting, re-ranking is run, and its recall and time are reported.
    """
    _warm_up()
    rows = GaussianRows(clients, width, SEED) if noise is None else ClusteredRows(clients, width, noise, SEED)
    _, reading = measure_cost(lambda: [rows.fill(index, torch.empty(width)) for index in range(clients)])
    true, exact = measure_cost(lambda: nearest(rows, NUM_NEIGHBORS, memory))
    table, largest = [], NUM_NEIGHBORS * max(overfetches)
    for size in sizes:
        sketches_KS, sketching = measure_cost(partial(sketch, rows, size, SEED, memory))
        found, searching = measure_cost(partial(nearest, TensorRows(sketches_KS), largest, memory))
        costs = {"sketch_cpu_seconds": sketching.cpu_seconds, "search_cpu_seconds": searching.cpu_seconds}
        for overfetch in overfetches:
            share = _recall(found.indices_KM[:, : NUM_NEIGHBORS * overfetch], true)
            table.append({"size": size, "overfetch": overfetch, "recall": share, **costs})
    chosen_setting = chosen["size"], chosen["overfetch"]
    approximate, cost = measure_cost(lambda: approximate_nearest(rows, NUM_NEIGHBORS, *chosen_setting, SEED, memory))
    return {
        "clients": clients, "parameters": width, "noise": noise, "memory_bound": memory, "table": table,
        "reading_once": vars(reading), "exact": vars(exact),
        "chosen": {**chosen, "recall": _recall(approximate.indices_KM, true), **vars(cost)},
    }  # fmt: skip


def search(clients: int, size: int, overfetch: int, memory: int) -> dict[str, Any]:
    """Search for candidates only, in sketches of adapters without structure."""
    _warm_up()
    sketches_KS = torch.from_numpy(generator(SEED, clients, "sketches").standard_normal((clients, size)))
    _, cost = measure_cost(lambda: nearest(TensorRows(sketches_KS), NUM_NEIGHBORS * overfetch, memory))
    return {"clients": clients, "size": size, "memory_bound": memory, **vars(cost)}


def simulation(clients: int, width: int, rounds: int) -> dict[str, Any]:
    """Time rounds over Flower's simulation engine and over a local transport."""
    from pilot.bench.scale import flower

    return flower.simulation(clients, width, rounds)


def _warm_up() -> None:
    """Run a small search first, so that the libraries' first pages (about 12 MiB) are not measured."""
    nearest(TensorRows(torch.eye(300, dtype=torch.float64)), NUM_NEIGHBORS)


def _recall(found_KC: Tensor, true: Nearest) -> float:
    """Return the share of the true neighbours that were found."""
    hits = (found_KC[:, :, None] == true.indices_KM[:, None, :]).any(dim=1)
    return float(hits.double().mean())


JOBS: Mapping[str, Callable[..., dict[str, Any]]] = MappingProxyType(
    {"averaging": averaging, "write": write, "ata": ata, "recall": recall, "search": search, "simulation": simulation}
)


def run_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run `job["name"]` with the other values as its arguments."""
    return JOBS[job["name"]](**{key: value for key, value in job.items() if key != "name"})


if __name__ == "__main__":
    print(json.dumps(run_job(json.loads(sys.argv[1]))))
