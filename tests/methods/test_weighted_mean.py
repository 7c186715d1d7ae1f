"""The one weighted mean."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.methods import mean as means
from pilot.methods.base import group_of, select, weighted_mean
from pilot.methods.mean import weighted_means


def test_by_hand() -> None:
    # (1 * 1 + 3 * 5) / 4 = 4 and (1 * 2 + 3 * (-2)) / 4 = -1.
    states = [
        ({"a": torch.tensor([1.0]), "b": torch.tensor(2.0)}, 1),
        ({"a": torch.tensor([5.0]), "b": torch.tensor(-2.0)}, 3),
    ]
    mean = weighted_mean(states)
    assert mean["a"].tolist() == [4.0] and mean["b"].item() == -1.0
    # A second call carries nothing over from the first, and the inputs are untouched.
    assert weighted_mean(states)["a"].tolist() == [4.0]
    assert states[0][0]["a"].tolist() == [1.0]


def test_it_streams_and_keeps_the_dtype() -> None:
    def states() -> object:
        for index in range(3):
            yield {"a": torch.tensor([float(index)], dtype=torch.bfloat16)}, 2

    mean = weighted_mean(states())  # type: ignore[arg-type]
    assert mean["a"].dtype == torch.bfloat16 and mean["a"].item() == 1.0


def test_sums_are_kept_in_float64() -> None:
    # In float32, 1e8 + 1 = 1e8, so (1e8 + 1 - 1e8) / 3 would be 0.
    values = [1e8, 1.0, -1e8]
    assert weighted_mean(({"a": torch.tensor([v])}, 1) for v in values)["a"].item() == pytest.approx(1 / 3)


@given(st.lists(st.lists(st.integers(0, 9), max_size=2), min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None)
def test_blocks_change_no_bit(shapes: list[list[int]], num_states: int, seed: int) -> None:
    """Blocks of 4 numbers and rows of 10, against one tensor after the other; states in other orders of names."""
    source = torch.Generator().manual_seed(seed)
    names = [f"t{index}" for index in range(len(shapes))]
    states = [
        ({name: torch.randn(shape, generator=source) for name, shape in zip(names, shapes, strict=True)}, 0.1 + k)
        for k in range(num_states)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(means, "BLOCK", 4)
        patch.setattr(means, "JOINED", 10)
        mean = weighted_mean((dict(reversed(state.items())) if k else state, w) for k, (state, w) in enumerate(states))
    assert list(mean) == names
    for name in names:
        total = torch.zeros_like(states[0][0][name], dtype=torch.float64)
        for state, weight in states:
            total += state[name].to(torch.float64) * weight
        assert torch.equal(mean[name], (total / sum(weight for _, weight in states)).to(torch.float32))


@given(st.permutations(range(4)))
def test_order_does_not_matter(order: list[int]) -> None:
    states = [({"a": torch.tensor([0.1 * k, 1.0 / (k + 1)])}, k + 1) for k in range(4)]
    torch.testing.assert_close(weighted_mean(states[k] for k in order)["a"], weighted_mean(states)["a"])


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_refuses_weights_that_are_not_positive_and_finite(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        weighted_mean([({"a": torch.ones(1)}, 1), ({"a": torch.ones(1)}, weight)])


@pytest.mark.parametrize(
    "other",
    [
        {"b": torch.ones(2)},
        {"a": torch.ones(2), "b": torch.ones(2)},
        {},
        {"a": torch.ones(1)},
        {"a": torch.ones(2, 1)},
        {"a": torch.ones(2, dtype=torch.float64)},
    ],
)
def test_refuses_states_that_do_not_match(other: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="state 1"):
        weighted_mean([({"a": torch.ones(2)}, 1), (other, 1)])


def test_refuses_integers_and_nothing() -> None:
    with pytest.raises(ValueError, match="floating-point"):
        weighted_mean([({"a": torch.ones(2, dtype=torch.int64)}, 1)])
    with pytest.raises(ValueError, match="no states"):
        weighted_mean([])


def test_groups() -> None:
    state = {"task_adapter.linear_1.weight": torch.ones(1), "text_adapter.q.lora_A": torch.ones(1)}
    assert group_of("task_adapter.linear_1.weight") == "task_adapter"
    assert list(select(state, {"text_adapter"})) == ["text_adapter.q.lora_A"]


def test_several_means_of_the_same_states_are_equal_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(means, "WIDE_BLOCK", 7)  # blocks end within tensors
    monkeypatch.setattr(means, "JOINED", 6)  # and the second and third tensor are joined
    generator = torch.Generator().manual_seed(3)
    states = [
        {"a": torch.randn(3, 5, generator=generator), "b": torch.randn(4, generator=generator), "c": torch.zeros(2)}
        for _ in range(4)
    ]
    states[1]["c"] = -states[1]["c"]
    parts = [[(0, 0.3), (2, 0.1), (1, 0.6)], [(1, 2.0)], [(3, 1e-9), (0, 7.0), (2, 1 / 3), (1, 5.5)]]
    for part, mean in zip(parts, weighted_means(states, parts), strict=True):
        expected = weighted_mean((states[k], weight) for k, weight in part)
        assert list(mean) == list(expected)
        for name, value in expected.items():
            assert value.numpy().tobytes() == mean[name].numpy().tobytes() and value.shape == mean[name].shape


def test_several_means_refuse_what_one_refuses() -> None:
    fine = {"a": torch.ones(2)}
    for states, parts, said in [
        ([fine, {"b": torch.ones(2)}], [[(0, 1.0), (1, 1.0)]], "state 1: names differ"),
        ([fine, {"a": torch.ones(3)}], [[(0, 1.0), (1, 1.0)]], "state 1, a"),
        ([fine, fine], [[(0, 1.0), (1, -1.0)]], "weight"),
        ([fine], [[]], "no states"),
    ]:
        with pytest.raises(ValueError, match=said):
            weighted_means(states, parts)
