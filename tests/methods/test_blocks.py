"""Distances in blocks against the pair-by-pair path, and what bounds their memory."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.methods import blocks, text_aggregation
from pilot.methods.base import State
from pilot.methods.blocks import StateRows, TensorRows, distance_matrix, nearest, rows_per_block, smallest
from pilot.methods.text_aggregation import (
    adaptive_text_aggregation,
    find_neighbourhoods,
    iter_mix,
    mix,
    neighbourhoods_from_distances,
    pairwise_distances,
)

NUM_NUMBERS = 40


def memory_for(height: int, width: int) -> int:
    """Bytes with which blocks have `height` rows: 16 d b + 40 b^2 + 24 d."""
    return 16 * width * height + 40 * height**2 + 24 * width


def clients(count: int, seed: int = 0, offset: float = 0.0) -> list[State]:
    """Two tensors each, 24 + 16 numbers."""
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.standard_normal((count, NUM_NUMBERS)) + offset).float()
    return [{"text_adapter.b": row[:24].view(4, 6), "text_adapter.a": row[24:]} for row in values]


def pair_by_pair(states: Sequence[State]) -> torch.Tensor:
    """The path of few clients, whatever their number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_aggregation, "NUM_PAIRWISE", len(states))
        return torch.tensor(pairwise_distances(states), dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 30), height=st.integers(1, 31), seed=st.integers(0, 9), offset=st.sampled_from([0, 1e3]))
def test_blocks_agree_with_pairs(count: int, height: int, seed: int, offset: float) -> None:
    states = clients(count, seed, offset)
    found = distance_matrix(StateRows(states), memory_for(height, NUM_NUMBERS))
    expected = pair_by_pair(states)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    assert torch.equal(found, found.T) and not found.diagonal().any()


def test_by_hand() -> None:
    """Points 0, 3 and 3 + 4i of a plane, in blocks of one, two and three: 3, 4 and 5."""
    rows = TensorRows(torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]]))
    expected = torch.tensor([[0.0, 3.0, 5.0], [3.0, 0.0, 4.0], [5.0, 4.0, 0.0]], dtype=torch.float64)
    for height in (1, 2, 3):
        torch.testing.assert_close(distance_matrix(rows, memory_for(height, 2)), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("height", [1, 3, 8])
def test_near_and_equal_rows_do_not_cancel(height: int) -> None:
    """Clusters 2e4 apart; within one, rows differ by 0, 2**-20 (in one number) or 1."""
    base = torch.zeros(8, 5, dtype=torch.float64)
    base[4:] = 1e4
    base[1, 2] += 2.0**-20
    base[3, 0] += 1.0
    found = distance_matrix(TensorRows(base), memory_for(height, 5))
    assert found[0, 1] == 2.0**-20 and found[0, 2] == 0.0 and found[2, 3] == pytest.approx(1.0, rel=1e-12)
    assert not found[4:, 4:].any(), "equal rows are exactly 0 apart"
    assert found[0, 4] == pytest.approx(1e4 * 5**0.5, rel=1e-12)


def test_products_alone_would_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second look the distance 2**-20 beside 1e4 is lost: the test above tests something."""
    rows = torch.full((4, 5), 1e4, dtype=torch.float64)
    rows[2:] = 0.0
    rows[1, 2] += 2.0**-20
    assert distance_matrix(TensorRows(rows))[0, 1] == 2.0**-20
    monkeypatch.setattr(blocks, "SUSPICIOUS", -1.0)
    assert not distance_matrix(TensorRows(rows))[0, 1] == pytest.approx(2.0**-20, rel=0.5)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(2, 25), height=st.integers(1, 26), num=st.integers(1, 6), levels=st.integers(1, 4))
def test_nearest_is_the_sorted_row(count: int, height: int, num: int, levels: int) -> None:
    """Rows are few different points, so that many distances are tied (at 0 exactly: those go by position)."""
    points = np.random.default_rng(count * height).integers(0, levels, (count, 2))
    found = nearest(TensorRows(torch.from_numpy(points).double()), num, memory_for(height, 2))
    for k in range(count):
        distances = [float(np.sqrt(((points[k] - points[j]) ** 2).sum())) for j in range(count)]
        others = sorted((j for j in range(count) if j != k), key=lambda j: (distances[j], j))[:num]
        chosen = found.indices_KM[k].tolist()
        assert k not in chosen and len(set(chosen)) == len(others)
        assert [distances[j] for j in chosen] == [distances[j] for j in others]
        assert found.distances_KM[k].tolist() == pytest.approx([distances[j] for j in chosen], rel=1e-7)
        equal = [j for j in others if distances[j] == 0]
        assert chosen[: len(equal)] == equal


def test_smallest_takes_the_first_of_the_tied() -> None:
    values = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0], [7.0, 7.0, 7.0, 7.0, 7.0]])
    assert smallest(values, 2).tolist() == [[4, 1], [4, 3], [0, 1]]
    assert smallest(values, 5).tolist() == [[4, 1, 2, 3, 0], [4, 3, 2, 1, 0], [0, 1, 2, 3, 4]]


def test_block_height_keeps_the_bound() -> None:
    """All of 10 rows of 100: 8 * 1000 + 40 * 100 + 2400 = 14400 bytes. One less: 1600 b + 40 b^2 <= 11999, b = 6."""
    assert rows_per_block(10, 100, 14400) == 10
    assert rows_per_block(10, 100, 14399) == 6
    assert rows_per_block(1000, 100, 1640 + 2400) == 1
    with pytest.raises(ValueError, match="memory: two rows of 100 numbers need 4040 bytes, got 4039"):
        rows_per_block(1000, 100, 4039)


class Lazy(Sequence[State]):
    """Counts how often each state is asked for."""

    def __init__(self, states: list[State]) -> None:
        self.states, self.asked = states, [0] * len(states)

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        self.asked[index] += 1
        return self.states[index]


def test_lazy_states_are_read_once_per_pair_of_blocks() -> None:
    """12 clients in 3 blocks of 4: the mean, and each block for itself and before every later block.

    The first state is read once more for names and shapes.
    """
    lazy = Lazy(clients(12))
    distance_matrix(StateRows(lazy), memory_for(4, NUM_NUMBERS))
    assert lazy.asked == [5, 4, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2]


def test_many_clients_mix_as_few_do() -> None:
    """70 clients take the way in blocks; pair by pair they get the same neighbours and nearly the same weights."""
    states, counts = clients(70), [1 + k % 5 for k in range(70)]
    memory = memory_for(20, NUM_NUMBERS)
    found = find_neighbourhoods(states, counts, memory=memory)
    expected = neighbourhoods_from_distances(pair_by_pair(states).tolist(), counts, 3, "samples")
    assert [hood.neighbours for hood in found] == [hood.neighbours for hood in expected]
    for mine, other in zip(found, expected, strict=True):
        assert mine.weights == pytest.approx(other.weights, rel=1e-9)
        assert mine.self_weight == pytest.approx(other.self_weight, rel=1e-9)
    mixed = adaptive_text_aggregation(states, counts, memory=memory)
    for mine, other in zip(mixed, mix(states, expected), strict=True):
        torch.testing.assert_close(mine["text_adapter.b"], other["text_adapter.b"])
    with pytest.raises(ValueError, match="numbers of examples"):
        find_neighbourhoods(states, counts[1:])
    with pytest.raises(ValueError, match="state 69"):
        find_neighbourhoods([*states[:-1], {"text_adapter.a": torch.zeros(40)}], counts)


def test_few_clients_take_the_exact_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("64 clients are compared pair by pair")

    monkeypatch.setattr(text_aggregation, "distance_matrix", never)
    monkeypatch.setattr(text_aggregation, "nearest", never)
    states = clients(65)
    pairwise_distances(states[:64])
    find_neighbourhoods(states[:64], [1] * 64)
    with pytest.raises(AssertionError, match="pair by pair"):
        pairwise_distances(states)


def test_mixing_one_by_one() -> None:
    states = [{"text_adapter.a": torch.tensor([float(value)])} for value in (0, 1, 3)]
    lazy = Lazy(states)
    around = find_neighbourhoods(states, [1, 1, 1], num_neighbors=1, self_weight=0.5)
    stream = iter_mix(lazy, around)
    assert isinstance(stream, Iterator)
    assert next(stream)["text_adapter.a"].item() == 0.5 and lazy.asked == [1, 1, 0]
    assert [state["text_adapter.a"].item() for state in stream] == [0.5, 2.0]
    with pytest.raises(ValueError, match="3 states but 2"):
        next(iter_mix(states, around[:2]))
