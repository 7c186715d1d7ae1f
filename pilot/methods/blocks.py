"""Distances between many clients, two blocks of clients in memory at a time, by matrix products.

With Y the rows minus their mean, ||y_k - y_j||^2 = ||y_k||^2 + ||y_j||^2 - 2 <y_k, y_j>, in float64. The mean is
taken off first because what all clients share would otherwise cancel. What is left of cancellation (two clients far
nearer to each other than to the mean) is found and computed from the difference itself.
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
"""A squared distance below this part of the two squared norms is computed anew. The products are exact to about
1e-14 of the norms, so that others have a relative error below about 1e-8."""
_BYTES_PER_PAIR = 40
_PANEL = 256


class Rows(Protocol):
    """K vectors of d numbers, each made or read when it is asked for."""

    @property
    def count(self) -> int:
        """K."""

    @property
    def width(self) -> int:
        """d."""

    def fill(self, index: int, out_D: Tensor) -> None:
        """Write row `index` into `out_D`."""


class StateRows:
    """Flattened states of equal names and shapes, in the order of names; `states` may load on access."""

    def __init__(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        self.states, first = states, states[0]
        self.count = len(states)
        self.shapes = {name: first[name].shape for name in sorted(first)}
        self.width = sum(value.numel() for value in first.values())

    def fill(self, index: int, out_D: Tensor) -> None:
        """Write one state, converted to the type of `out_D`.

        Raises:
            ValueError: its names or shapes are not the first state's.
        """
        state, start = self.states[index], 0
        if {name: state[name].shape for name in sorted(state)} != self.shapes:
            raise ValueError(f"state {index}: names or shapes differ from the first state's")
        for name, shape in self.shapes.items():
            out_D[start : start + shape.numel()].copy_(state[name].detach().reshape(-1))
            start += shape.numel()


class TensorRows:
    """The rows of a matrix (K, d) that is in memory."""

    def __init__(self, matrix_KD: Tensor) -> None:
        self.matrix_KD = matrix_KD
        self.count, self.width = matrix_KD.shape

    def fill(self, index: int, out_D: Tensor) -> None:
        """Write one row."""
        out_D.copy_(self.matrix_KD[index])


@dataclass(frozen=True)
class Tile:
    """Distances between rows `first_row`.. and rows `first_column`..; on the diagonal, both are the same rows."""

    first_row: int
    first_column: int
    distances_RC: Tensor


@dataclass(frozen=True)
class Nearest:
    """Per row the positions (K, M) of the nearest others, nearest first, and their distances (K, M).

    Distances that are equal as computed go by position; those of the products may differ in their last digits.
    """

    indices_KM: Tensor
    distances_KM: Tensor


def rows_per_block(count: int, width: int, memory: int) -> int:
    """The largest b that keeps within `memory` bytes: K if all rows fit, else b rows twice.

    Counted are 8 bytes per number of the blocks, three more rows, and 40 bytes per pair of a tile; not the result,
    nor the one state that a lazy sequence hands out at a time.

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
    """All tiles on and below the diagonal. Every pair of blocks is read once: K (K / b + 1) / 2 rows, and K more.

    For each row, the others arrive in ascending order.
    """
    size = rows_per_block(rows.count, rows.width, memory)
    own = torch.empty(size, rows.width, dtype=torch.float64)
    if size == rows.count:
        _fill(rows, 0, own, None)
        own -= own.mean(dim=0)
        yield Tile(0, 0, _within(own))
        return
    other, mean_D = torch.empty_like(own), _mean(rows, own[0])
    for first in range(0, rows.count, size):
        a = _fill(rows, first, own, mean_D)
        for before in range(0, first, size):
            yield Tile(first, before, _between(a, _fill(rows, before, other, mean_D)))
        yield Tile(first, first, _within(a))


def distance_matrix(rows: Rows, memory: int = DEFAULT_MEMORY) -> Tensor:
    """(K, K) distances in float64, exactly symmetric, the diagonal and the distances of equal rows exactly 0."""
    result_KK = torch.empty(rows.count, rows.count, dtype=torch.float64)
    for tile in tiles(rows, memory):
        r, c = (slice(first, first + size) for first, size in zip(*_place(tile), strict=True))
        result_KK[r, c] = tile.distances_RC
        result_KK[c, r] = tile.distances_RC.T
    return result_KK


def nearest(rows: Rows, num_neighbors: int, memory: int = DEFAULT_MEMORY) -> Nearest:
    """The M nearest others of every row (all others where there are fewer), without a (K, K) matrix."""
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
    """(R, num) positions of the smallest values of each row, smallest first, ties by position."""
    found = torch.topk(values_RC, num, dim=1, largest=False)
    limit = found.values[:, -1:]
    positions = found.indices.sort(dim=1).values
    positions = positions.gather(1, values_RC.gather(1, positions).sort(dim=1, stable=True).indices)
    tied = ((values_RC <= limit).sum(dim=1) > num).nonzero()[:, 0]  # topk may have taken any of the tied
    if len(tied):
        positions[tied] = values_RC[tied].sort(dim=1, stable=True).indices[:, :num]
    return positions


def _place(tile: Tile) -> tuple[tuple[int, int], tuple[int, int]]:
    rows, columns = tile.distances_RC.shape
    return (tile.first_row, tile.first_column), (rows, columns)


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


def _within(a_BD: Tensor) -> Tensor:
    """Distances within one block, panel by panel, so that nearly half of the products are not computed."""
    squares_BB = torch.zeros(len(a_BD), len(a_BD), dtype=torch.float64)
    for start in range(0, len(a_BD), _PANEL):
        panel = slice(start, start + _PANEL)
        squares_BB[start:, panel] = _squares(a_BD[start:], a_BD[panel], diagonal=True)
    return squares_BB.tril_(-1).add_(squares_BB.T.clone()).sqrt_()


def _between(a_RD: Tensor, b_CD: Tensor) -> Tensor:
    return _squares(a_RD, b_CD, diagonal=False).sqrt_()


def _squares(a_RD: Tensor, b_CD: Tensor, *, diagonal: bool) -> Tensor:
    """Squared distances; with `diagonal`, only those below the diagonal are right."""
    a_R, b_C = (torch.stack([row.dot(row) for row in block]) for block in (a_RD, b_CD))
    norms_RC = a_R[:, None] + b_C[None, :]
    squares_RC = a_RD @ b_CD.T
    squares_RC.mul_(-2).add_(norms_RC)
    suspicious_RC = squares_RC <= norms_RC.mul_(SUSPICIOUS)
    if diagonal:
        suspicious_RC = suspicious_RC.tril_(-1)
    if suspicious_RC.any():
        _compute_anew(squares_RC, suspicious_RC, a_RD, b_CD)
    return squares_RC


def _compute_anew(squares_RC: Tensor, suspicious_RC: Tensor, a_RD: Tensor, b_CD: Tensor) -> None:
    """From differences; rows of equal bytes are 0 apart without any."""
    a_marks, b_marks = (
        {int(i): _mark(block[i]) for i in found.nonzero()[:, 0]}
        for block, found in ((a_RD, suspicious_RC.any(1)), (b_CD, suspicious_RC.any(0)))
    )
    for row, column in suspicious_RC.nonzero().tolist():
        equal = a_marks[row] == b_marks[column]
        squares_RC[row, column] = 0.0 if equal else float((a_RD[row] - b_CD[column]).square().sum())


def _mark(row_D: Tensor) -> bytes:
    return hashlib.sha256(row_D.numpy().data).digest()


def _merge(best: Nearest, first_row: int, distances_RC: Tensor, first_column: int) -> None:
    """Take the nearest of what was best so far and of further columns, which come after all before them."""
    part = slice(first_row, first_row + len(distances_RC))
    num = best.indices_KM.shape[1]
    positions = smallest(distances_RC, min(num, distances_RC.shape[1]))
    values = torch.cat([best.distances_KM[part], distances_RC.gather(1, positions)], dim=1)
    indices = torch.cat([best.indices_KM[part], positions + first_column], dim=1)
    order = values.sort(dim=1, stable=True).indices[:, :num]
    best.distances_KM[part] = values.gather(1, order)
    best.indices_KM[part] = indices.gather(1, order)
