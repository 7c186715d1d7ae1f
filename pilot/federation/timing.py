"""`timing.json`: total time and peak memory of a run, over all parts of an interrupted run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pilot.errors import UserError
from pilot.federation.participant import peak_memory_mb
from pilot.io.atomic import read_json, write_json

DIGITS = 3
MEASURED = (
    "wall_seconds", "train_seconds", "step_seconds", "exchange_seconds", "aggregate_seconds", "checkpoint_seconds",
    "peak_memory_mb", "client_peak_memory_mb",
)  # fmt: skip


@dataclass
class Clock:
    """Wall time by kind of work, in seconds, and the clients' peak memory in MB.

    `step` is the part of `train` spent in optimiser steps; all other time does not depend on their number. If clients
    work at the same time, both count the slowest client of each phase.
    """

    train: float = 0.0
    step: float = 0.0
    exchange: float = 0.0
    aggregate: float = 0.0
    checkpoint: float = 0.0
    client_memory_mb: float = 0.0


class Timing:
    """Timer that starts when created; with `resumed`, the values in `path` of the run's earlier parts are included.

    If the file is damaged, `warn` is called and counting starts at 0: no result of the run depends on it.
    """

    def __init__(self, path: Path, resumed: bool, warn: Callable[[str], None] = lambda text: None) -> None:
        self._path = path
        self._earlier: dict[str, float] = {}
        if resumed and path.is_file():
            try:
                self._earlier = read_json(path, dict.fromkeys(MEASURED, (int, float)))
            except UserError:
                warn(f"{path}: damaged. The run continues; its times are counted from now on.")
        self._began = time.perf_counter()

    def write(self, clock: Clock) -> None:
        """Write the seconds so far and the peak resident memory."""
        seconds = {
            "wall_seconds": time.perf_counter() - self._began,
            "train_seconds": clock.train,
            "step_seconds": clock.step,
            "exchange_seconds": clock.exchange,
            "aggregate_seconds": clock.aggregate,
            "checkpoint_seconds": clock.checkpoint,
        }
        total = {name: round(value + self._earlier.get(name, 0.0), DIGITS) for name, value in seconds.items()}
        memory = {"peak_memory_mb": peak_memory_mb(), "client_peak_memory_mb": clock.client_memory_mb}
        most = {name: max(value, self._earlier.get(name, 0.0)) for name, value in memory.items()}
        write_json(self._path, total | most)
