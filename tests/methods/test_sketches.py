"""Sketches: their distances on average, the search with and without re-ranking, refusals."""

import numpy as np
import pytest
import torch

from pilot.bench.scale.sketches import PIECE, approximate_nearest, rerank, signs, sketch
from pilot.methods.blocks import TensorRows, nearest


def points(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, width)))


def recall(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found[:, :, None] == true[:, None, :]).any(1).double().mean())


def test_signs_are_signs_of_their_own_piece() -> None:
    first = signs(0, 0, 16)
    assert first.shape == (PIECE, 16) and set(first.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(first, signs(0, 0, 16))
    assert not torch.equal(first, signs(0, 1, 16)) and not torch.equal(first, signs(1, 0, 16))
    # 131072 signs: the mean's standard deviation is 0.0028; columns of 8192 are uncorrelated up to 0.011.
    assert abs(float(first.mean())) < 0.014
    assert float((first.T @ first / PIECE - torch.eye(16)).abs().max()) < 0.06


def test_squared_distance_is_right_on_average() -> None:
    """One pair, 400 projections of s = 8: relative standard deviation sqrt(2 / 8) / 20 = 0.025."""
    rows = points(2, 50)
    true = float((rows[0] - rows[1]).square().sum())
    found = []
    for seed in range(400):
        sketches = sketch(TensorRows(rows), 8, seed)
        found.append(float((sketches[0] - sketches[1]).square().sum()) / true)
    assert np.mean(found) == pytest.approx(1.0, abs=0.1)
    assert np.std(found) == pytest.approx(0.5, abs=0.1)


def test_sketch_is_the_product_with_the_signs() -> None:
    """Over two pieces, and in blocks of one row as in one block."""
    rows = points(3, PIECE + 5)
    expected = (rows - rows[0]) @ torch.cat([signs(7, 0, 8), signs(7, 1, 8)[:5]]).double() / 8**0.5
    for memory in (2**30, 16 * (PIECE + 5) + 5 * PIECE * 8 + 4 * (PIECE + 5)):
        torch.testing.assert_close(sketch(TensorRows(rows), 8, 7, memory), expected, rtol=1e-5, atol=1e-3)


def test_a_large_common_part_does_not_drown_the_differences() -> None:
    rows = points(6, 100) * 1e-3
    plain, moved = (sketch(TensorRows(values), 64, 0) for values in (rows, rows + 1e5))
    torch.testing.assert_close(moved, plain, rtol=1e-3, atol=1e-6)


def test_reranking_all_is_exact() -> None:
    """With every other row as a candidate nothing can be missed, in one block or in blocks of 7 rows."""
    rows = TensorRows(points(40, 30))
    true = nearest(rows, 3)
    for memory in (2**30, 24 * 30 + 7 * 8 * 30):
        found = rerank(rows, nearest(rows, 39).indices_KM, 3, memory)
        assert torch.equal(found.indices_KM, true.indices_KM)
        torch.testing.assert_close(found.distances_KM, true.distances_KM, rtol=1e-9, atol=0)
    assert torch.equal(approximate_nearest(rows, 3, 8, 13, 0).indices_KM, true.indices_KM)


def test_reranking_finds_what_sketches_confuse() -> None:
    """Few directions of variation and little noise: candidates suffice, sketches alone do not."""
    rng = np.random.default_rng(0)
    latent, basis = rng.standard_normal((300, 4)), rng.standard_normal((4, 500))
    rows = TensorRows(torch.from_numpy(latent @ basis + 0.2 * rng.standard_normal((300, 500))))
    true = nearest(rows, 3).indices_KM
    with_exact = approximate_nearest(rows, 3, 64, 16, 0)
    without = nearest(TensorRows(sketch(rows, 64, 0)), 3)
    assert recall(with_exact.indices_KM, true) > 0.98
    assert 0.3 < recall(without.indices_KM, true) < 0.9
    distances = torch.stack([torch.cdist(rows.matrix_KD[k : k + 1], rows.matrix_KD)[0] for k in range(300)])
    torch.testing.assert_close(with_exact.distances_KM, distances.gather(1, with_exact.indices_KM))


def test_refusals() -> None:
    for name, size, overfetch in (("size", 0, 16), ("size", 12, 16), ("overfetch", 256, 0)):
        with pytest.raises(ValueError, match=name):
            approximate_nearest(TensorRows(points(2, 10)), 1, size, overfetch, 0)
    with pytest.raises(ValueError, match="memory: a sketch of one row needs"):
        sketch(TensorRows(points(2, 10)), 8, 0, 1000)
    with pytest.raises(ValueError, match="memory: comparing two rows needs 320 bytes"):
        rerank(TensorRows(points(2, 10)), torch.tensor([[1], [0]]), 1, 300)
