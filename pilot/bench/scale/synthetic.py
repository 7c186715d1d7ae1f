"""Synthetic adapters of clients, generated or read on demand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pilot.io.seeding import generator
from pilot.methods.base import State
from pilot.methods.blocks import Rows

NUM_TASKS = 3
NUM_DIRECTIONS = 8
SEPARATION = 1.3
"""Standard deviation of the tasks' centres, relative to 1 within a task: distances between tasks are then 1.64 times
those within a task, as for the text adapters of `scenario2` at the end of training (docs/notes/sketches.md)."""


class ClusteredRows:
    """Adapters of K clients of three tasks: a centre per task, variation along a few directions, and noise.

    The variance within a task is 1 per number; the share `noise` of it is independent from number to number, the rest
    is along `NUM_DIRECTIONS` directions of the task. Client k has task k mod 3 and depends only on the seed and k.
    """

    def __init__(self, count: int, width: int, noise: float, seed: int) -> None:
        self.count, self.width, self.noise, self.seed = count, width, noise, seed
        rng = generator(seed, "clusters")
        self.centres_TD = SEPARATION * rng.standard_normal((NUM_TASKS, width), dtype=np.float32)
        spread = ((1 - noise) / NUM_DIRECTIONS) ** 0.5
        self.directions_TQD = spread * rng.standard_normal((NUM_TASKS, NUM_DIRECTIONS, width), dtype=np.float32)

    def fill(self, index: int, out_D: Tensor) -> None:
        """Write the adapter of client `index`; the noise is uniform, which is five times faster to draw."""
        rng, task = generator(self.seed, index, "client"), index % NUM_TASKS
        place_Q = rng.standard_normal(NUM_DIRECTIONS, dtype=np.float32)
        row_D = rng.random(self.width, dtype=np.float32)
        row_D -= 0.5
        row_D *= (12 * self.noise) ** 0.5
        row_D += self.centres_TD[task]
        row_D += place_Q @ self.directions_TQD[task]
        out_D.copy_(torch.from_numpy(row_D))


class GaussianRows:
    """Adapters of independent Gaussian numbers: the hard case, with all clients almost equally far from each other."""

    def __init__(self, count: int, width: int, seed: int) -> None:
        self.count, self.width, self.seed = count, width, seed

    def fill(self, index: int, out_D: Tensor) -> None:
        """Write the adapter of client `index`."""
        row_D = generator(self.seed, index, "client").standard_normal(self.width, dtype=np.float32)
        out_D.copy_(torch.from_numpy(row_D))


def write_rows(rows: Rows, folder: Path) -> None:
    """Write one file of float32 numbers per client."""
    row_D = torch.empty(rows.width)
    for index in range(rows.count):
        rows.fill(index, row_D)
        row_D.numpy().tofile(folder / f"{index}.f32")


class FileStates(Sequence[State]):
    """The first clients' adapters in a folder of `write_rows`, as LoRA pairs, read on access."""

    def __init__(self, folder: Path, num_states: int) -> None:
        self.folder, self.num_states = folder, num_states

    def __len__(self) -> int:
        return self.num_states

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Read one client's state."""
        if not 0 <= index < self.num_states:
            raise IndexError(index)
        values_D = torch.from_numpy(np.fromfile(self.folder / f"{index}.f32", dtype=np.float32))
        names = ("text_adapter.q.lora_A", "text_adapter.q.lora_B", "text_adapter.v.lora_A", "text_adapter.v.lora_B")
        return dict(zip(names, values_D.tensor_split(len(names)), strict=True))
