"""Distances between many clients by matrix products, with two blocks of clients in memory at a time.

With Y the rows minus their mean, ||y_k - y_j||^2 = ||y_k||^2 + ||y_j||^2 - 2 <y_k, y_j>, in float64. The mean is
subtracted first, since components common to all clients would otherwise cause cancellation. Pairs in which
cancellation remains (two clients much nearer to each other than to the mean) are detected and computed from the
difference itself.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

DEFAULT_MEMORY = 2 * 1024**3
"""Bytes."""
SUSPICIOUS = 1e-6
"""A squared distance below this fraction of the sum of the two squared norms is recomputed. The products are exact to
about 1e-14 of the norms, so that all others have a relative error below about 1e-8."""
_BYTES_PER_PAIR = 40
_PANEL = 256


class Rows(Protocol):
    """K vectors of d numbers, each computed or read on request."""

    @property
    def count(self) -> int:
        """Number of vectors, K."""

    @property
    def width(self) -> int:
        """Numbers per vector, d."""

    def fill(self, index: int, out_D: Tensor) -> None:
        """Write row `index` into `out_D`."""


class StateRows:
    """Flattened states of equal names and shapes, tensors sorted by name; `states` may load on access."""

    def __init__(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        self.states, first = states, states[0]
        self.count = len(states)
        self.shapes = {name: first[name].shape for name in sorted(first)}
        self.width = sum(value.numel() for value in first.values())

    def fill(self, index: int, out_D: Tensor) -> None:
        """Write state `index` into `out_D`, converted to its dtype.

        Raises:
            ValueError: the state's names or shapes differ from the first state's.
        """
        state, start = self.states[index], 0
        if {name: state[name].shape for name in sorted(state)} != self.shapes:
            raise ValueError(f"state {index}: names or shapes differ from the first state's")
        for name, shape in self.shapes.items():
            out_D[start : start + shape.numel()].copy_(state[name].detach().reshape(-1))
            start += shape.numel()


class TensorRows:
    """The rows of a matrix (K, d) in memory."""

    def __init__(self, matrix_KD: Tensor) -> None:
        self.matrix_KD = matrix_KD
        self.count, self.width = matrix_KD.shape

    def fill(self, index: int, out_D: Tensor) -> None:
        """Write row `index` into `out_D`."""
        out_D.copy_(self.matrix_KD[index])


@dataclass(frozen=True)
class Tile:
    """Distances between rows from `first_row` and rows from `first_column`; on the diagonal both are the same rows."""

    first_row: int
    first_column: int
    distances_RC: Tensor


@dataclass(frozen=True)
class Nearest:
    """Per row the positions (K, M) of the nearest others, nearest first, and their distances (K, M).

    Ties in the computed distances go by position; equal distances from products may differ in their last digits.
    """

    indices_KM: Tensor
    distances_KM: Tensor


def rows_per_block(count: int, width: int, memory: int) -> int:
    """Return the largest block size within `memory` bytes: K if all rows fit, else b such that two blocks of b rows do.

    The estimate includes 8 bytes per number of the blocks, three more rows, and 40 bytes per pair of a tile, but not
    the result, nor the one state that a lazy sequence loads at a time.

    Raises:
        ValueError: not even blocks of one row fit.
    """
    free = memory - 24 * width
    if 8 * count * width + _BYTES_PER_PAIR * count**2 <= free:
        return count
    # 16 d b + 40 b^2 = free
    root = math.isqrt(max(0, (16 * width) ** 2 + 4 * _BYTES_PER_PAIR * free))
    size = (root - 16 * width) // (2 * _BYTES_PER_PAIR)
    if size < 1:
        needed = 40 * width + _BYTES_PER_PAIR
        raise ValueError(f"memory: two rows of {width} numbers need {needed} bytes, got {memory}")
    return min(size, count)


def tiles(rows: Rows, memory: int = DEFAULT_MEMORY) -> Iterator[Tile]:
    """Yield all tiles on and below the diagonal; for each row, the others come in ascending order.

    Every pair of blocks is read once: K (K / b + 1) / 2 rows, and K more for the mean.
    """
    size = rows_per_block(rows.count, rows.width, memory)
    own = torch.empty(size, rows.width, dtype=torch.float64)
    if size == rows.count:
        _fill(rows, 0, own, None)
        own -= own.mean(dim=0)
        yield Tile(0, 0, _distances_within(own))
        return
    other, mean_D = torch.empty_like(own), _mean(rows, own[0])
    for first in range(0, rows.count, size):
        a = _fill(rows, first, own, mean_D)
        for before in range(0, first, size):
            b = _fill(rows, before, other, mean_D)
            yield Tile(first, before, _squares(a, b, diagonal=False).sqrt_())
        yield Tile(first, first, _distances_within(a))


def distance_matrix(rows: Rows, memory: int = DEFAULT_MEMORY) -> Tensor:
    """Compute (K, K) distances in float64: exactly symmetric, exactly 0 on the diagonal and between equal rows."""
    result_KK = torch.empty(rows.count, rows.count, dtype=torch.float64)
    for tile in tiles(rows, memory):
        starts = tile.first_row, tile.first_column
        r, c = (slice(start, start + size) for start, size in zip(starts, tile.distances_RC.shape, strict=True))
        result_KK[r, c] = tile.distances_RC
        result_KK[c, r] = tile.distances_RC.T
    return result_KK


def nearest(rows: Rows, num_neighbors: int, memory: int = DEFAULT_MEMORY) -> Nearest:
    """Find the M nearest others of every row (all others if there are fewer), without a (K, K) matrix."""
    num = min(num_neighbors, rows.count - 1)
    best = Nearest(
        torch.zeros(rows.count, num, dtype=torch.int64), torch.full((rows.count, num), math.inf, dtype=torch.float64)
    )
    for tile in tiles(rows, memory) if num else ():
        if tile.first_row == tile.first_column:
            tile.distances_RC.fill_diagonal_(math.inf)
        else:
            _merge(best, tile.first_column, tile.distances_RC.T.contiguous(), tile.first_row)
        _merge(best, tile.first_row, tile.distances_RC, tile.first_column)
    return best


def smallest(values_RC: Tensor, num: int) -> Tensor:
    """Return (R, num) positions of the smallest values of each row, smallest first, ties by position."""
    found = torch.topk(values_RC, num, dim=1, largest=False)
    limit = found.values[:, -1:]
    positions = found.indices.sort(dim=1).values
    positions = positions.gather(1, values_RC.gather(1, positions).sort(dim=1, stable=True).indices)
    tied = ((values_RC <= limit).sum(dim=1) > num).nonzero()[:, 0]  # topk may pick any of the tied values
    if len(tied):
        positions[tied] = values_RC[tied].sort(dim=1, stable=True).indices[:, :num]
    return positions


def _mean(rows: Rows, buffer_D: Tensor) -> Tensor:
    total_D = torch.zeros_like(buffer_D)
    for index in range(rows.count):
        rows.fill(index, buffer_D)
        total_D += buffer_D
    return total_D / rows.count


def _fill(rows: Rows, first: int, block_BD: Tensor, mean_D: Tensor | None) -> Tensor:
    filled = block_BD[: min(len(block_BD), rows.count - first)]
    for index, row_D in enumerate(filled):
        rows.fill(first + index, row_D)
        if mean_D is not None:
            row_D -= mean_D
    return filled


def _distances_within(a_BD: Tensor) -> Tensor:
    """Compute distances within a block, panel by panel, which saves nearly half of the products."""
    squares_BB = torch.zeros(len(a_BD), len(a_BD), dtype=torch.float64)
    for start in range(0, len(a_BD), _PANEL):
        panel = slice(start, start + _PANEL)
        squares_BB[start:, panel] = _squares(a_BD[start:], a_BD[panel], diagonal=True)
    return squares_BB.tril_(-1).add_(squares_BB.T.clone()).sqrt_()


def _squares(a_RD: Tensor, b_CD: Tensor, *, diagonal: bool) -> Tensor:
    """Compute squared distances; with `diagonal`, only those below the diagonal are valid."""
    a_R, b_C = (torch.stack([row.dot(row) for row in block]) for block in (a_RD, b_CD))
    norms_RC = a_R[:, None] + b_C[None, :]
    squares_RC = a_RD @ b_CD.T
    squares_RC.mul_(-2).add_(norms_RC)
    suspicious_RC = squares_RC <= norms_RC.mul_(SUSPICIOUS)
    if diagonal:
        suspicious_RC = suspicious_RC.tril_(-1)
    if suspicious_RC.any():
        _recompute(squares_RC, suspicious_RC, a_RD, b_CD)
    return squares_RC


def _recompute(squares_RC: Tensor, suspicious_RC: Tensor, a_RD: Tensor, b_CD: Tensor) -> None:
    """Recompute suspicious distances from differences, or set them to 0 where the rows' bytes are equal."""
    a_marks, b_marks = (
        {int(i): hashlib.sha256(block[i].numpy().data).digest() for i in found.nonzero()[:, 0]}
        for block, found in ((a_RD, suspicious_RC.any(1)), (b_CD, suspicious_RC.any(0)))
    )
    for row, column in suspicious_RC.nonzero().tolist():
        equal = a_marks[row] == b_marks[column]
        squares_RC[row, column] = 0.0 if equal else float((a_RD[row] - b_CD[column]).square().sum())


def _merge(best: Nearest, first_row: int, distances_RC: Tensor, first_column: int) -> None:
    """Keep the nearest among the best so far and further columns, whose positions are larger than all before."""
    part = slice(first_row, first_row + len(distances_RC))
    num = best.indices_KM.shape[1]
    positions = smallest(distances_RC, min(num, distances_RC.shape[1]))
    values = torch.cat([best.distances_KM[part], distances_RC.gather(1, positions)], dim=1)
    indices = torch.cat([best.indices_KM[part], positions + first_column], dim=1)
    order = values.sort(dim=1, stable=True).indices[:, :num]
    best.distances_KM[part] = values.gather(1, order)
    best.indices_KM[part] = indices.gather(1, order)
