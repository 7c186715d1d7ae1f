"""`pilot-bench bench aggregate`: the server's means beside stack-and-mean, and ATA beside a loop over pairs.

States to be averaged are generated on demand, on both sides and within the measured time, as a server receives them:
our side takes one after the other, the plain side has to hold them all. ATA's states are in memory beforehand.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pilot.backbone.numerics import Numerics, configure_torch
from pilot.bench.kernels.compare import compare_sides
from pilot.bench.kernels.references import reference
from pilot.bench.kernels.report import Report, Row
from pilot.bench.scale.measure import slope
from pilot.io.seeding import seed_for
from pilot.methods.base import State, weighted_mean
from pilot.methods.text_aggregation import adaptive_text_aggregation

TOLERANCE = 1e-5
MIN_SECONDS = 0.01
NUM_TENSORS = 8
NUM_NEIGHBORS = 3
FEW_PAIRS = 32
"""Largest number of clients of ATA with all repetitions; above it, a fifth of them, since the loop takes seconds."""
NOTE = "MiB: peak memory of newly allocated tensors, including results; exponents are over the number of clients."


@dataclass(frozen=True)
class Sizes:
    """Numbers of clients for the weighted mean and for ATA, and number of parameters per client."""

    mean_clients: tuple[int, ...] = (4, 16, 64, 256)
    ata_clients: tuple[int, ...] = (4, 9, 16, 32, 64, 128)
    parameters: int = 200_000


QUICK = Sizes((2, 3), (4, 5), 160)


def bench_aggregate(sizes: Sizes, repeats: int, advance: Callable[[int, int], None]) -> Report:
    """Measure time and memory over the number of clients.

    Args:
        sizes: sizes to measure.
        repeats: number of repetitions for each number of clients; see `FEW_PAIRS`.
        advance: called with the finished and total numbers of rows.

    Raises:
        UserError: the sides disagree, or the references are missing.
    """
    configure_torch(Numerics())
    rows: list[Row] = []
    total = len(sizes.mean_clients) + len(sizes.ata_clients)
    exponents: dict[str, float] = {}
    for what, make, counts in (("weighted mean", _means, sizes.mean_clients), ("ATA", _atas, sizes.ata_clients)):
        own = []
        for clients in counts:
            few = what == "ATA" and clients > FEW_PAIRS
            own.append(_row(what, clients, make(clients, sizes.parameters), max(1, repeats // 5) if few else repeats))
            advance(len(rows) + len(own), total)
        for side in ("ours", "plain"):
            memory = [row.values[f"{side} MiB"] for row in own]
            exponents[f"{what}, {side} memory exponent"] = slope(list(counts), memory)
        rows += own
    settings = {"parameters": sizes.parameters, "repeats": repeats, "tolerance": TOLERANCE, "dtype": "float32"}
    return Report("aggregate", settings, rows, exponents, [NOTE])


def _state(client: int, parameters: int) -> State:
    """Generate a client's state of `NUM_TENSORS` tensors, the same on each call."""
    generator = torch.Generator().manual_seed(seed_for("bench aggregate", client))
    values = torch.randn(NUM_TENSORS, parameters // NUM_TENSORS, generator=generator)
    return {f"text_adapter.{index}": row for index, row in enumerate(values)}


def _weight(client: int) -> int:
    return 10 + client % 7


def _means(clients: int, parameters: int) -> dict[str, Callable[[], dict[str, Tensor]]]:
    plain = reference("aggregate").weighted_mean

    def arriving() -> Iterator[tuple[State, float]]:
        return ((_state(client, parameters), _weight(client)) for client in range(clients))

    def stacked() -> State:
        states, weights = zip(*arriving(), strict=True)
        result: State = plain(states, weights)
        return result

    return {"ours": lambda: weighted_mean(arriving()), "plain": stacked}


def _atas(clients: int, parameters: int) -> dict[str, Callable[[], dict[str, Tensor]]]:
    states = [_state(client, parameters) for client in range(clients)]
    counts = [_weight(client) for client in range(clients)]
    plain = reference("aggregate").adaptive_text_aggregation
    return {
        "ours": lambda: _flatten_states(adaptive_text_aggregation(states, counts, num_neighbors=NUM_NEIGHBORS)),
        "plain": lambda: _flatten_states(plain(states, counts, NUM_NEIGHBORS)),
    }


def _flatten_states(states: list[State]) -> dict[str, Tensor]:
    return {f"client {client} {name}": value for client, state in enumerate(states) for name, value in state.items()}


def _row(what: str, clients: int, sides: dict[str, Callable[[], dict[str, Tensor]]], repeats: int) -> Row:
    return compare_sides(
        f"bench aggregate, {what} of {clients} clients", {"what": what, "clients": clients}, sides, repeats,
        tolerance=TOLERANCE, min_seconds=MIN_SECONDS,
    )  # fmt: skip
