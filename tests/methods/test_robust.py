"""Median, trimmed mean, multi-Krum and clipping: by hand, in any order, and against attackers."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pilot.methods.base import State, weighted_mean
from pilot.methods.robust import BLOCK, clip_update, coordinate_median, multi_krum, trimmed_mean

Rule = Callable[[Iterable[tuple[State, float]]], State]
RULES: dict[str, Rule] = {
    "median": coordinate_median,
    "trimmed": lambda states: trimmed_mean(states, 0.3),
    "untrimmed": lambda states: trimmed_mean(states, 0.0),
}
finite = st.floats(-1e6, 1e6, width=32)
anything = st.floats(width=32)


def states_of(*rows: Sequence[float], dtype: torch.dtype = torch.float32) -> list[State]:
    """One state per row: its first value in one tensor, the others in a second one."""
    return [{"a": torch.tensor(row[:1], dtype=dtype), "b": torch.tensor([row[1:]], dtype=dtype)} for row in rows]


def weighted(states: Iterable[State]) -> list[tuple[State, float]]:
    return [(state, 1.0) for state in states]


def values(state: State) -> list[float]:
    return [*state["a"].tolist(), *state["b"][0].tolist()]


def raw(state: State) -> dict[str, bytes]:
    """Bytes by name, so that 0.0 and -0.0 differ."""
    return {name: value.numpy().tobytes() for name, value in state.items()}


def drawn(data: st.DataObject, count: int, width: int, elements: st.SearchStrategy[float] = finite) -> list[State]:
    return states_of(*data.draw(arrays(np.float32, (count, width), elements=elements)).tolist())


def test_median_by_hand() -> None:
    # Odd: the middle of 1, 2, 9 and of -4, 0, 5. Even: (2 + 9) / 2 and (0 + 5) / 2.
    assert values(coordinate_median(weighted(states_of([9, 0], [1, -4], [2, 5])))) == [2.0, 0.0]
    assert values(coordinate_median(weighted(states_of([9, 0], [1, -4], [2, 5], [70, 6])))) == [5.5, 2.5]
    assert values(coordinate_median(weighted(states_of([3, 1])))) == [3.0, 1.0]


def test_trimmed_mean_by_hand() -> None:
    # Five values, 0.2 of each end: one. 1 | 2, 3, 7 | 100: 4. And -9 | 0, 0, 6 | 8: 2.
    states = weighted(states_of([7, 0], [1, 6], [100, -9], [3, 8], [2, 0]))
    assert values(trimmed_mean(states, 0.2)) == [4.0, 2.0]
    # 0.39 * 5 = 1.95 cuts one as well, 0.4 two: the median.
    assert values(trimmed_mean(states, 0.39)) == [4.0, 2.0]
    assert values(trimmed_mean(states, 0.4)) == values(coordinate_median(states)) == [3.0, 0.0]
    # 0.19 * 5 = 0.95 cuts none: 113 / 5 and 5 / 5.
    assert values(trimmed_mean(states, 0.19)) == pytest.approx([22.6, 1.0])


def test_trim_is_read_as_a_decimal() -> None:
    # 0.29 * 100 = 28.999999999999996 in binary, but 29 of 100 are cut: 29 .. 70 of 0 .. 99 are left, with 29 ** 3
    # and so on: their mean differs from that of 28 .. 71.
    states = [({"a": torch.tensor([float(k**3)], dtype=torch.float64)}, 1.0) for k in range(100)]
    expected = sum(k**3 for k in range(29, 71)) / 42
    assert trimmed_mean(states, 0.29)["a"].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_weights_do_not_count_but_are_checked(rule: Rule) -> None:
    states = states_of([1, 2], [3, 4], [8, 9])
    heavy = rule(zip(states, [1e9, 1, 2], strict=True))
    assert raw(heavy) == raw(rule(weighted(states)))
    for weight in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="state 1: expected a positive finite weight"):
            rule(zip(states, [1, weight, 1], strict=True))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_dtype_shape_order_and_inputs_are_kept(rule: Rule) -> None:
    states = states_of([1, 2, 3], [3, 4, 5], [8, 9, 1], dtype=torch.bfloat16)
    before = [values(state) for state in states]
    result = rule(iter(weighted(states)))
    assert list(result) == ["a", "b"] and result["b"].shape == (1, 2)
    assert {value.dtype for value in result.values()} == {torch.bfloat16}
    assert [values(state) for state in states] == before
    assert rule(weighted([{"a": torch.tensor(2.0)}] * 3))["a"].shape == ()
    assert rule(weighted([{"a": torch.zeros(0, 4)}] * 3))["a"].shape == (0, 4)


def test_middle_values_are_averaged_in_float64() -> None:
    # In float64 the middle of 2 ** 24 and 2 ** 24 + 2 is 2 ** 24 + 1, no float32, stored as 2 ** 24 (ties to even).
    # 3e38 + 3e38 overflows in float32.
    for low, high, middle in ((2.0**24, 2.0**24 + 2, 2.0**24), (3e38, 3e38, 3e38)):
        result = coordinate_median(weighted([{"a": torch.tensor([low])}, {"a": torch.tensor([high])}]))
        assert result["a"].item() == torch.tensor(middle).item()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_tensors_larger_than_a_block(rule: Rule) -> None:
    generator = torch.Generator().manual_seed(0)
    states = [{"a": torch.randn(BLOCK + 7, generator=generator)} for _ in range(4)]
    result = rule(weighted(states))["a"]
    for index in (0, BLOCK - 1, BLOCK, BLOCK + 6):
        one = rule(weighted({"a": state["a"][index : index + 1]} for state in states))["a"]
        assert result[index].item() == pytest.approx(one.item(), rel=1e-6)


@pytest.mark.parametrize("rule", [*RULES.values(), lambda s: [multi_krum([state for state, _ in s], 0, 1)]])
@pytest.mark.parametrize(
    "other",
    [{"b": torch.ones(2)}, {}, {"a": torch.ones(1)}, {"a": torch.ones(2, 1)}, {"a": torch.ones(2).double()}],
)
def test_states_that_do_not_match(rule: Rule, other: State) -> None:
    first = {"a": torch.ones(2)}
    with pytest.raises(ValueError, match="state 1"):
        rule([(first, 1.0), (other, 1.0), (first, 1.0)])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_integers_and_nothing_are_refused(rule: Rule) -> None:
    with pytest.raises(ValueError, match="floating-point"):
        rule(weighted([{"a": torch.ones(2, dtype=torch.int64)}]))
    with pytest.raises(ValueError, match="no states"):
        rule([])


@pytest.mark.parametrize("trim", [-0.1, 0.5, math.nan])
def test_trim_out_of_range(trim: float) -> None:
    with pytest.raises(ValueError, match="trim: expected a share"):
        trimmed_mean(weighted(states_of([1, 2])), trim)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@given(data=st.data())
def test_order_changes_no_bit(rule: Rule, data: st.DataObject) -> None:
    states = drawn(data, data.draw(st.integers(1, 9)), 3, st.one_of(finite, st.sampled_from([0.0, -0.0])))
    order = data.draw(st.permutations(range(len(states))))
    assert raw(rule(weighted(states[k] for k in order))) == raw(rule(weighted(states)))


@given(data=st.data(), count=st.integers(3, 11))
def test_attackers_below_the_breakdown_point_move_nothing_out_of_the_honest_range(
    data: st.DataObject, count: int
) -> None:
    """Whatever they send, NaN and infinities included; float64, where a rounded sum could leave the range."""
    for rule, most in (
        (coordinate_median, (count - 1) // 2),
        (lambda states: trimmed_mean(states, 0.3), count * 3 // 10),
    ):
        hostile = data.draw(st.integers(0, most))
        honest = data.draw(arrays(np.float64, (count - hostile, 3), elements=st.floats(-1e6, 1e6)))
        sent = data.draw(arrays(np.float64, (hostile, 3), elements=st.floats()))
        rows = data.draw(st.permutations([*honest.tolist(), *sent.tolist()]))
        result = np.array(values(rule(weighted(states_of(*rows, dtype=torch.float64)))))
        assert (honest.min(axis=0) <= result).all() and (result <= honest.max(axis=0)).all()


def test_the_breakdown_point_is_sharp() -> None:
    """One attacker more, and the result follows them: the bound above is not true for a trivial reason."""
    assert values(coordinate_median(weighted(states_of([0, 0], [1, 1], [9e5, 9e5], [9e5, 9e5])))) == [450000.5] * 2
    assert values(trimmed_mean(weighted(states_of([0, 0], [0, 0], [0, 0], [9, 9], [9, 9])), 0.2)) == [3.0, 3.0]


def test_krum_by_hand() -> None:
    # At 0, 1, 3, 7, 100 with f = 1: K - f - 2 = 2 nearest. Scores: 1 + 9 = 10; 1 + 4 = 5; 4 + 9 = 13;
    # 16 + 36 = 52; 93 ** 2 + 97 ** 2.
    states = states_of([7, 0], [100, 0], [0, 0], [3, 0], [1, 0])
    assert multi_krum(states, 1, 1) == (4,)
    assert multi_krum(states, 1, 2) == (2, 4)
    assert multi_krum(states, 1, 3) == (2, 3, 4)
    assert multi_krum(states, 1, 4) == (0, 2, 3, 4)
    # Distances span all tensors: (3, 4) is 25 from the origin; with f = 0, K = 3 the one nearest other counts:
    # 25 and 25 tie with position, (3, 5) is 1 from (3, 4).
    assert multi_krum(states_of([0, 0], [3, 4], [3, 5]), 0, 1) == (1,)
    assert multi_krum(states_of([0, 0], [3, 4], [3, 5]), 0, 3) == (0, 1, 2)


def test_krum_ties_go_to_the_lower_position() -> None:
    assert multi_krum(states_of([0, 0], [0, 0], [0, 0], [5, 5], [5, 5], [5, 5]), 1, 2) == (0, 1)
    assert multi_krum(states_of([5, 5], [5, 5], [5, 5], [0, 0], [0, 0], [0, 0]), 1, 2) == (0, 1)


@given(data=st.data(), num_byzantine=st.integers(0, 3), extra=st.integers(0, 3))
def test_krum_selects_the_same_states_in_any_order(data: st.DataObject, num_byzantine: int, extra: int) -> None:
    count = 2 * num_byzantine + 3 + extra
    states = drawn(data, count, 2, st.integers(-1000, 1000).map(float))
    order = data.draw(st.permutations(range(count)))
    selected = data.draw(st.integers(1, count - num_byzantine))
    direct = multi_krum(states, num_byzantine, selected)
    shuffled = multi_krum([states[k] for k in order], num_byzantine, selected)
    scores = [krum_score(states, k, num_byzantine) for k in range(count)]
    assert sorted(scores[k] for k in direct) == sorted(scores[order[k]] for k in shuffled) == sorted(scores)[:selected]


def krum_score(states: Sequence[State], k: int, num_byzantine: int) -> float:
    """The definition, with NumPy; exact, as the values are small integers."""
    rows = np.array([values(state) for state in states])
    distances = np.sort(((rows - rows[k]) ** 2).sum(axis=1))  # the first is its own, 0
    return float(distances[1 : len(states) - num_byzantine - 1].sum())


@given(data=st.data(), num_byzantine=st.integers(1, 3), extra=st.integers(0, 3))
def test_krum_never_selects_attackers_from_afar(data: st.DataObject, num_byzantine: int, extra: int) -> None:
    """Even if all f send the same, and all K - f honest ones are asked for."""
    count = 2 * num_byzantine + 3 + extra
    honest = drawn(data, count - num_byzantine, 2, st.floats(-1, 1, width=32))
    far = st.one_of(
        st.floats(100, 2.0**100, width=32), st.floats(-(2.0**100), -100, width=32), st.sampled_from([math.nan])
    )
    together = data.draw(st.booleans())
    hostile = drawn(data, 1, 2, far) * num_byzantine if together else drawn(data, num_byzantine, 2, far)
    order = data.draw(st.permutations(range(count)))
    everyone = [*honest, *hostile]
    selected = multi_krum([everyone[k] for k in order], num_byzantine, count - num_byzantine)
    assert {order[k] for k in selected} == set(range(len(honest)))


def test_krum_refusals() -> None:
    states = states_of(*[[k, k] for k in range(6)])
    with pytest.raises(ValueError, match=r"num_byzantine: Krum needs at least 2 f \+ 3 updates: 7 for f = 2, got 6"):
        multi_krum(states, 2, 1)
    for selected in (0, 6):
        with pytest.raises(ValueError, match=r"num_selected: expected 1\.\.5"):
            multi_krum(states, 1, selected)
    with pytest.raises(ValueError, match="num_byzantine: expected at least 0"):
        multi_krum(states, -1, 1)
    with pytest.raises(ValueError, match="no states"):
        multi_krum([], 0, 1)


def norm_between(state: State, reference: State) -> float:
    return math.sqrt(sum(float((state[n].double() - reference[n].double()).square().sum()) for n in state))


def test_clipping_by_hand() -> None:
    # The difference (3, 0, 4) has norm 5; halved it is (1.5, 0, 2).
    reference, state = states_of([1, 1, 1], [4, 1, 5])
    clipped, norm = clip_update(state, {"z": torch.ones(3), **reference}, 2.5)
    assert norm == 5.0 and values(clipped) == pytest.approx([2.5, 1.0, 3.0], rel=1e-6)
    assert list(clipped) == ["a", "b"] and clipped["b"].shape == (1, 2)
    assert values(state) == [4.0, 1.0, 5.0], "the input is untouched"


def test_clipping_leaves_what_is_within_the_bound() -> None:
    reference, state = states_of([1, 1, 1], [4, 1, -0.0])
    exact = math.sqrt(9 + 1)
    for bound in (exact, 100.0):
        kept, norm = clip_update(state, reference, bound)
        assert norm == exact and raw(kept) == raw(state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@given(data=st.data(), bound=st.floats(1e-6, 1e3))
def test_clipping_keeps_its_bound_exactly(dtype: torch.dtype, data: st.DataObject, bound: float) -> None:
    reference = states_of(*data.draw(arrays(np.float32, (1, 5), elements=finite)).tolist(), dtype=dtype)[0]
    state = states_of(*data.draw(arrays(np.float32, (1, 5), elements=finite)).tolist(), dtype=dtype)[0]
    clipped, norm = clip_update(state, reference, bound)
    assert norm == norm_between(state, reference)
    assert norm_between(clipped, reference) <= bound
    assert clipped["a"].dtype == dtype
    if norm <= bound:
        assert raw({n: v.double() for n, v in clipped.items()}) == raw({n: v.double() for n, v in state.items()})


@given(data=st.data(), bound=st.floats(0.01, 10.0), hostile=st.integers(0, 3))
def test_clipping_bounds_the_influence_on_the_mean(data: st.DataObject, bound: float, hostile: int) -> None:
    """Each attacker moves the mean of K by at most bound / K, compared with one that sends what it received."""
    reference = drawn(data, 1, 3)[0]
    honest = drawn(data, 4, 3)
    sent = drawn(data, hostile, 3, st.floats(-(2.0**100), 2.0**100, width=32))

    def mean(extra: list[State]) -> State:
        states = [clip_update(state, reference, bound)[0] for state in [*honest, *extra]]
        return weighted_mean(({n: v.double() for n, v in state.items()}, 1.0) for state in states)

    moved = norm_between(mean(sent), mean([reference] * hostile))
    assert moved <= hostile * bound / (4 + hostile) * (1 + 1e-9) + 1e-9


def test_clipping_refusals() -> None:
    state, reference = states_of([1, 2], [1, 1])
    for bound in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="max_norm: expected a positive finite number"):
            clip_update(state, reference, bound)
    with pytest.raises(ValueError, match="names differ"):
        clip_update(state, {"a": reference["a"]}, 1.0)
    with pytest.raises(ValueError, match="state 1, b"):
        clip_update(state, {**reference, "b": torch.ones(1)}, 1.0)
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match="the norm of the update is"):
            clip_update(states_of([wrong, 1])[0], reference, 1.0)
