"""Aggregation drift by hand."""

import pytest
import torch

from pilot.federation import drift
from pilot.federation.drift import Drift
from pilot.methods.base import State, Update


def update(client: int, count: int, a: list[list[float]], b: list[list[float]], layer: str = "q") -> Update:
    return Update(
        client, "vqa", count,
        {f"text_adapter.{layer}.lora_A": torch.tensor(a), f"text_adapter.{layer}.lora_B": torch.tensor(b)},
    )  # fmt: skip


def measured(*updates: Update) -> float | None:
    found = Drift()
    for each in updates:
        found.add(each)
    return found.value({})


def lora(a: list[list[float]] | None = None, b: list[list[float]] | None = None) -> State:
    factors = {"text_adapter.q.lora_A": a, "text_adapter.q.lora_B": b}
    return {name: torch.tensor(value) for name, value in factors.items() if value is not None}


def made(before: State, after: State, *updates: Update) -> float | None:
    """The drift of a method whose server is meant to hold the mean product."""
    found = Drift(before)
    for each in updates:
        found.add(each)
    return found.value(after)


def test_weighted_by_hand() -> None:
    # Weights 1/4 and 3/4. mean(BA) = 1/4 * 2*4 + 3/4 * 0 = 2; mean(B) = 1/4*2 + 3/4*4 = 3.5, mean(A) = 1/4*4 + 0 = 1.
    # |2 - 3.5| / 2 = 0.75.
    assert measured(update(0, 1, [[4.0]], [[2.0]]), update(1, 3, [[0.0]], [[4.0]])) == pytest.approx(0.75)


def test_equal_factors_do_not_drift() -> None:
    same = [update(k, k + 1, [[1.0, -2.0]], [[3.0], [0.5]]) for k in range(3)]
    assert measured(*same) == pytest.approx(0.0, abs=1e-6)


def test_layers_count_together() -> None:
    # Layer q as above: error 1.5, product 2. Layer v: no error, product 4. sqrt(1.5^2) / sqrt(2^2 + 4^2) = 0.33541.
    first, second = update(0, 1, [[4.0]], [[2.0]]), update(1, 3, [[0.0]], [[4.0]])
    for each in (first, second):
        each.state.update(update(0, 1, [[2.0]], [[2.0]], "v").state)
    assert measured(first, second) == pytest.approx(1.5 / 20**0.5, rel=1e-5)


def test_a_lower_rank_is_padded_with_zeros() -> None:
    # Client 0 of rank 2, client 1 of rank 1, equal weights, in = out = 1.
    # mean(BA) = ((1*1 + 2*3) + 4*5) / 2 = 13.5; mean(B) = [2.5, 1], mean(A) = [3, 1.5]: 7.5 + 1.5 = 9.
    # 4.5 / 13.5 = 1/3.
    wide, narrow = update(0, 1, [[1.0], [3.0]], [[1.0, 2.0]]), update(1, 1, [[5.0]], [[4.0]])
    assert measured(wide, narrow) == measured(narrow, wide) == pytest.approx(1 / 3, rel=1e-5)


def test_only_the_adapter_counts() -> None:
    first, second = update(0, 1, [[4.0]], [[2.0]]), update(1, 3, [[0.0]], [[4.0]])
    for each in (first, second):
        each.state.update({f"control_change.{name}": 7 * value for name, value in list(each.state.items())})
    assert measured(first, second) == pytest.approx(0.75)


def test_nothing_to_measure() -> None:
    half = Update(0, "vqa", 1, {"text_adapter.q.lora_B": torch.ones(2, 1)})
    assert measured() is None and measured(half) is None
    assert measured(update(0, 1, [[4.0]], [[2.0]]), half) is None, "a mean over some of the clients would mislead"
    assert measured(update(0, 1, [[4.0]], [[0.0]])) is None, "no product to relate the error to"


def test_large_models_are_measured_on_their_first_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "MAX_ELEMENTS", 1)
    first, second = update(0, 1, [[4.0]], [[2.0]]), update(1, 3, [[0.0]], [[4.0]])
    for each in (first, second):
        each.state.update(update(0, 1, [[2.0]], [[2.0]], "v").state)
    assert measured(first, second) == pytest.approx(0.75)


def test_what_the_server_made_is_measured_where_it_is_meant_to_be_the_mean_product() -> None:
    # As above, mean(BA) = 2. The averaged factors have 3.5; with an offset that grows by -1.5 the server has 2 again.
    both = update(0, 1, [[4.0]], [[2.0]]), update(1, 3, [[0.0]], [[4.0]])
    averaged = lora([[1.0]], [[3.5]])
    assert made({}, averaged, *both) == pytest.approx(0.75)
    grown = {"offset.q.weight": torch.tensor([[0.25]])}, {"offset.q.weight": torch.tensor([[-1.25]])}
    assert made(grown[0], {**averaged, **grown[1]}, *both) == 0
    assert made({}, {"offset.q.weight": torch.tensor([[2.0]])}, *both) == 0, "no factors at all: a fresh LoRA"


def test_a_factor_that_is_not_sent_is_that_of_the_server_or_common() -> None:
    halves = [Update(k, "vqa", 1, lora(b=[[1.0 + k], [2.0]])) for k in range(2)]  # mean B (1.5, 2)
    assert made({}, lora(b=[[1.5], [2.0]]), *halves) == 0
    assert made(lora([[2.0, 4.0]]), lora([[2.0, 4.0]], [[1.5], [2.0]]), *halves) == 0
    # The server refactors: mean(B) A = (3, 6; 4, 8) = (3; 4) (1, 2). With (1, 1) instead: |(0, 3; 0, 4)| / sqrt(125).
    assert made(lora([[2.0, 4.0]]), lora([[1.0, 2.0]], [[3.0], [4.0]]), *halves) == 0
    assert made(lora([[2.0, 4.0]]), lora([[1.0, 1.0]], [[3.0], [4.0]]), *halves) == pytest.approx(
        5 / 125**0.5, rel=1e-5
    )
    assert made({}, {}, Update(0, "vqa", 1, {"connector.a": torch.ones(1)})) is None
