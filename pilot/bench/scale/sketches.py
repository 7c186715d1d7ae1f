"""Approximate nearest neighbours of very many clients, from random projections of their adapters.

s(x) = R^T (x - x_0) / sqrt(s) with R of shape (d, s), entries +1 or -1 (Achlioptas, Journal of Computer and System
Sciences 2003). E ||s(x) - s(y)||^2 = ||x - y||^2 with a relative standard deviation of at most sqrt(2 / s), whatever
d is. R is generated from the seed in pieces of `PIECE` rows, so that a client can compute its own sketch and send s
numbers; x_0 is any vector known to all (here the first row; in a deployment, the model that all received).

The nearest sketches belong only probably to the nearest clients; `overfetch` * M candidates are compared exactly.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pilot.io.seeding import generator
from pilot.methods.blocks import DEFAULT_MEMORY, Nearest, Rows, TensorRows, nearest, smallest

PIECE = 8192


def approximate_nearest(
    rows: Rows, num_neighbors: int, size: int, overfetch: int, seed: int, memory: int = DEFAULT_MEMORY
) -> Nearest:
    """Find the approximate M nearest others of every row by sketches; distances are exact after re-ranking.

    Besides `memory` bytes for blocks, the sketches take 8 K s bytes, and re-ranking about 120 bytes per candidate.

    Args:
        rows: the rows.
        num_neighbors: M.
        size: s, numbers per sketch; a multiple of 8.
        overfetch: candidates per requested neighbour, which are compared exactly.
        seed: seed of the projection.
        memory: bytes for blocks.
    """
    if size < 8 or size % 8:
        raise ValueError(f"size: expected a positive multiple of 8, got {size}")
    if overfetch < 1:
        raise ValueError(f"overfetch: expected at least 1, got {overfetch}")
    candidates = nearest(TensorRows(sketch(rows, size, seed, memory)), num_neighbors * overfetch, memory)
    return rerank(rows, candidates.indices_KM, num_neighbors, memory)


def sketch(rows: Rows, size: int, seed: int, memory: int = DEFAULT_MEMORY) -> Tensor:
    """Compute (K, s) sketches in float64; every row is read once, products are in float32."""
    fixed = 16 * rows.width + 5 * PIECE * size
    height = min(rows.count, (memory - fixed) // (4 * rows.width))
    if height < 1:
        raise ValueError(f"memory: a sketch of one row needs {fixed + 4 * rows.width} bytes, got {memory}")
    origin_D, row_D = torch.empty(2, rows.width, dtype=torch.float64)
    rows.fill(0, origin_D)
    block_BD = torch.empty(height, rows.width)
    result_KS = torch.zeros(rows.count, size, dtype=torch.float64)
    for first in range(0, rows.count, height):
        part_BD = block_BD[: rows.count - first]
        for index, out_D in enumerate(part_BD):
            rows.fill(first + index, row_D)
            out_D.copy_(row_D.sub_(origin_D))
        for start in range(0, rows.width, PIECE):
            piece = part_BD[:, start : start + PIECE]
            result_KS[first : first + height] += piece @ signs(seed, start // PIECE, size)[: piece.shape[1]]
    return result_KS / math.sqrt(size)


def signs(seed: int, piece: int, size: int) -> Tensor:
    """Generate the rows of R from `piece` * PIECE: (PIECE, s), entries +1 or -1."""
    packed = np.frombuffer(generator(seed, piece, "sketch").bytes(PIECE * size // 8), dtype=np.uint8)
    return torch.from_numpy(np.unpackbits(packed)).to(torch.float32).mul_(2).sub_(1).view(PIECE, size)


def rerank(rows: Rows, candidates_KC: Tensor, num_neighbors: int, memory: int = DEFAULT_MEMORY) -> Nearest:
    """Find the M nearest among each row's candidates (K, C) by exact distances; ties by position.

    Each pair is computed once. One block of rows is in memory; a row is read once for itself and once for every
    earlier block that it is paired with.
    """
    candidates_KC = candidates_KC.sort(dim=1).values
    own_KC = torch.arange(rows.count)[:, None].expand_as(candidates_KC)
    codes_KC = torch.minimum(own_KC, candidates_KC) * rows.count + torch.maximum(own_KC, candidates_KC)
    pairs, place = torch.unique(codes_KC, return_inverse=True)
    squares = torch.empty(len(pairs), dtype=torch.float64)
    for position, value in _squares(rows, pairs // rows.count, pairs % rows.count, memory):
        squares[position] = value
    distances_KC = squares.sqrt_()[place]
    chosen = smallest(distances_KC, min(num_neighbors, candidates_KC.shape[1]))
    return Nearest(candidates_KC.gather(1, chosen), distances_KC.gather(1, chosen))


def _squares(rows: Rows, lower: Tensor, upper: Tensor, memory: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the positions of pairs (`lower` ascending, `lower` < `upper`) and their squared distances."""
    height = min(rows.count, (memory - 24 * rows.width) // (8 * rows.width))
    if height < 1:
        raise ValueError(f"memory: comparing two rows needs {32 * rows.width} bytes, got {memory}")
    block_BD = torch.empty(height, rows.width, dtype=torch.float64)
    single_D, difference_D = torch.empty(2, rows.width, dtype=torch.float64)
    for first in range(0, rows.count, height):
        last = min(first + height, rows.count)
        for index in range(first, last):
            rows.fill(index, block_BD[index - first])
        start, stop = (int(torch.searchsorted(lower, bound)) for bound in (first, last))
        order, before = upper[start:stop].argsort(stable=True) + start, -1
        for part in order.split(PIECE):  # Python lists of all pairs would take several times the memory
            for position, low, high in zip(part.tolist(), lower[part].tolist(), upper[part].tolist(), strict=True):
                if high != before and high >= last:
                    rows.fill(high, single_D)
                before = high
                other_D = single_D if high >= last else block_BD[high - first]
                torch.sub(block_BD[low - first], other_D, out=difference_D)
                yield position, difference_D.dot(difference_D)
