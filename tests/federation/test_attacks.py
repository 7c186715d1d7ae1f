"""Faulty clients send what the table of faults says, and the guard finds the NaN."""

import math

import pytest
import torch

from pilot.federation.attacks import DEFAULT_FACTOR, AttackKind, corrupt
from pilot.federation.guard import reason_to_exclude
from pilot.methods.base import Phase, State, Update

# Received 1, 2 and 0.5; trained 1.25, 1 and 0.5: differences 0.25, -1 and 0.
RECEIVED = {"connector.a": torch.tensor([[1.0, 2.0]]), "connector.b": torch.tensor(0.5), "router.c": torch.ones(3)}
TRAINED = {"connector.a": torch.tensor([[1.25, 1.0]]), "connector.b": torch.tensor(0.5)}


def values(state: State) -> list[float]:
    assert list(state) == ["connector.a", "connector.b"]
    assert state["connector.a"].shape == (1, 2) and state["connector.b"].shape == ()
    return [*state["connector.a"][0].tolist(), state["connector.b"].item()]


@pytest.mark.parametrize(
    ("kind", "factor", "expected"),
    [
        ("sign_flip", 10.0, [0.75, 3.0, 0.5]),
        ("scale", DEFAULT_FACTOR, [3.5, -8.0, 0.5]),
        ("scale", -2.0, [0.5, 4.0, 0.5]),
        ("free_rider", 10.0, [1.0, 2.0, 0.5]),
    ],
)
def test_by_hand(kind: AttackKind, factor: float, expected: list[float]) -> None:
    sent = corrupt(kind, TRAINED, RECEIVED, factor)
    assert values(sent) == expected
    assert values(TRAINED) == [1.25, 1.0, 0.5] and RECEIVED["connector.a"].tolist() == [[1.0, 2.0]]
    sent["connector.a"].zero_()
    assert RECEIVED["connector.a"].tolist() == [[1.0, 2.0]], "what is sent is a copy"


def test_every_tensor_has_one_nan_and_the_guard_finds_it() -> None:
    sent = corrupt("nan", TRAINED, RECEIVED)
    assert [math.isnan(value) for value in values(sent)] == [True, False, True]
    assert values(sent)[1] == 1.0
    phase = Phase("train", frozenset({"connector"}), frozenset({"connector"}))
    assert reason_to_exclude(Update(0, "vqa", 5, sent), TRAINED, phase, 5) == "connector.a: not finite"
    for kind in ("sign_flip", "scale", "free_rider"):
        assert reason_to_exclude(Update(0, "vqa", 5, corrupt(kind, TRAINED, RECEIVED)), TRAINED, phase, 5) == ""


def test_dtypes_and_shapes_are_kept() -> None:
    trained = {"connector.a": torch.ones(3, 2, dtype=torch.bfloat16).T, "connector.b": torch.zeros(0)}
    received = {"connector.a": torch.zeros(2, 3, dtype=torch.bfloat16), "connector.b": torch.zeros(0)}
    for kind in ("nan", "sign_flip", "scale", "free_rider"):
        sent = corrupt(kind, trained, received)
        assert sent["connector.a"].dtype == torch.bfloat16
        assert sent["connector.a"].shape == (2, 3) and sent["connector.b"].shape == (0,)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="attack: expected one of nan, sign_flip, scale, free_rider, got 'noise'"):
        corrupt("noise", TRAINED, RECEIVED)  # type: ignore[arg-type]
    for received in ({}, {**RECEIVED, "connector.b": torch.zeros(1)}):
        with pytest.raises(ValueError, match="connector.[ab]: the values before training are missing"):
            corrupt("sign_flip", TRAINED, received)
