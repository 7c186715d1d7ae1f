"""Blind answers."""

import pytest

from baselines.majority import majority_answer
from pilot.data.record import InstructionRecord


def record(
    number: int, task: str, answer: str, box: tuple[float, float, float, float] | None = None
) -> InstructionRecord:
    return InstructionRecord(
        id=f"{number:03}", task=task, source="test", image=b"", instruction="", answer=answer,
        references=(answer,), attributes={}, split="train", box=box,
    )  # fmt: skip


def test_most_frequent_answer_with_ties_in_alphabetical_order() -> None:
    assert majority_answer([record(k, "vqa", a) for k, a in enumerate(["no", "yes", "yes"])]) == "yes"
    assert majority_answer([record(k, "vqa", a) for k, a in enumerate(["yes", "no", "red"])]) == "no"


def test_mean_box() -> None:
    boxes = [(0.0, 0.1, 0.5, 1.0), (0.25, 0.3, 1.0, 1.0)]
    records = [record(k, "ground", "", box) for k, box in enumerate(boxes)]
    assert majority_answer(records) == "[0.12, 0.20, 0.75, 1.00]"
    with pytest.raises(ValueError, match="1 of 3 grounding records have no box"):
        majority_answer([*records, record(9, "ground", "")])


def test_medoid_caption() -> None:
    # F1: "a b" and "a c": 2 * 1 / 4 = 0.5; "a b" and "a b c": 4 / 5; "a c" and "a b c": 4 / 5.
    # Means: 0.65, 0.65, 0.8.
    captions = ["a b", "a c", "a b c"]
    assert majority_answer([record(k, "caption", c) for k, c in enumerate(captions)]) == "a b c"
    assert majority_answer([record(k, "caption", c) for k, c in enumerate(["b a", "a b"])]) == "a b"
    assert majority_answer([record(0, "caption", "alone")]) == "alone"


def test_the_order_of_records_does_not_matter() -> None:
    records = [record(k, "caption", f"a {k % 7} and {k % 5} {k % 3}") for k in range(250)]
    assert majority_answer(records) == majority_answer(records[::-1])


def test_refusals() -> None:
    for records in ([], [record(0, "vqa", "a"), record(1, "caption", "b")], [record(0, "sound", "a")]):
        with pytest.raises(ValueError):
            majority_answer(records)
