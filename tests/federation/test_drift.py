"""Aggregation drift by hand."""

import pytest
import torch

from pilot.federation import drift
from pilot.federation.drift import Drift
from pilot.methods.base import Update


def update(client: int, count: int, a: list[list[float]], b: list[list[float]], layer: str = "q") -> Update:
    return Update(
        client, "vqa", count,
        {f"text_adapter.{layer}.lora_A": torch.tensor(a), f"text_adapter.{layer}.lora_B": torch.tensor(b)},
    )  # fmt: skip


def measured(*updates: Update) -> float | None:
    found = Drift()
    for each in updates:
        found.add(each)
    return found.value()


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
