"""Whether another tool was asked what we ask."""

from pathlib import Path
from typing import Any

import pytest

from pilot.data.record import InstructionRecord
from pilot.errors import UserError
from pilot.evaluation.imported.formats import Answer
from pilot.evaluation.imported.matching import match_answers

FILE = Path("theirs.jsonl")


def record(task: str, number: int, answer: str) -> InstructionRecord:
    """A test record without an image worth looking at."""
    return InstructionRecord(
        f"{task}-{number}", "vqa", "fixture", f"image {number}".encode(), "What?", answer, (answer,), {}, "test"
    )


TESTS = {
    "colours": [record("colours", n, answer) for n, answer in enumerate(("red", "blue", "green", "red"))],
    "counts": [record("counts", n, answer) for n, answer in enumerate(("two", "three"))],
}


def answers(task: str, **stated: list[Any]) -> list[Answer]:
    """An answer to every record of a task, with what the file says about each."""
    return [
        Answer(n + 1, each.id, f"answer {n}", {name: values[n] for name, values in stated.items()})
        for n, each in enumerate(TESTS[task])
    ]


def numbered(first: int, references: list[str | None]) -> list[Answer]:
    """Answers that name their examples by number from `first`."""
    return [
        Answer(n + 1, str(n + first), f"answer {n}", {} if text is None else {"answer": text})
        for n, text in enumerate(references)
    ]


EXPECTED = {f"colours-{n}": f"answer {n}" for n in range(4)}


def test_the_task_is_found_from_the_ids() -> None:
    assert match_answers(FILE, answers("colours"), TESTS, None) == {"colours": EXPECTED}
    assert match_answers(FILE, answers("colours")[::-1], TESTS, "colours") == {"colours": EXPECTED}


def test_several_tasks_in_one_file() -> None:
    both = [Answer(n, each.id, "x", task=task) for task in TESTS for n, each in enumerate(TESTS[task])]
    assert {task: len(found) for task, found in match_answers(FILE, both, TESTS, None).items()} == {
        "colours": 4,
        "counts": 2,
    }
    assert list(match_answers(FILE, both, TESTS, "counts")) == ["counts"]
    with pytest.raises(UserError, match="no rows of task counts, only of colours. Choose another --task"):
        match_answers(FILE, both[:4], TESTS, "counts")


def test_numbers_are_places_in_the_test_set_if_the_answers_agree() -> None:
    references = ["red", "['blue']", " green", "red"]
    assert match_answers(FILE, numbered(0, references), TESTS, "colours") == {"colours": EXPECTED}
    with pytest.raises(UserError, match="1 of its ids are unknown, first: '4'; 1 ids have no answer, first: 'col"):
        match_answers(FILE, numbered(1, references), TESTS, "colours")
    with pytest.raises(UserError, match="3 examples differ, first: 'colours-0', 'colours-1', 'colours-2'. For"):
        match_answers(FILE, numbered(0, ["blue", "green", "red", "red"]), TESTS, "colours")
    with pytest.raises(UserError, match="row numbers, and 1 rows have no reference answer .*first: '2'"):
        match_answers(FILE, numbered(0, ["red", "blue", None, "red"]), TESTS, "colours")


def test_other_ids_are_counted_and_named() -> None:
    own = answers("colours")
    with pytest.raises(UserError) as caught:
        match_answers(FILE, [*own[:1], Answer(9, "x", "?"), Answer(10, "y", "?")], TESTS, "colours")
    assert str(caught.value) == (
        "theirs.jsonl: not the test set of colours: 2 of its ids are unknown, first: 'x', 'y'; 3 ids have no answer, "
        "first: 'colours-1', 'colours-2', 'colours-3'. Answer exactly the test split."
    )


@pytest.mark.parametrize(
    ("field", "values", "said"),
    [
        ("answer", ["red", "blue", "grey", "red"], "1 examples differ, first: 'colours-2'.*answer 'grey', .*'green'"),
        ("image_sha256", ["0", "0", "0", "0"], "4 examples differ, first: .*and 1 more. For 'colours-0'.*image_sha256"),
        ("references", [["red"], ["blue"], ["green", "teal"], ["red"]], "1 examples differ, .*references"),
        ("instruction", ["What?", "What?", "What?", "Which?"], "1 examples differ, first: 'colours-3'.*instruction"),
        ("box", [None, [0.0, 0.0, 1.0, 1.0], None, None], "1 examples differ, first: 'colours-1'.*box"),
    ],
)
def test_other_examples_are_counted_and_named(field: str, values: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        match_answers(FILE, answers("colours", **{field: values}), TESTS, None)


def test_what_agrees_is_taken() -> None:
    digests = [each.image_sha256 for each in TESTS["colours"]]
    references = [list(each.references) for each in TESTS["colours"]]
    own = answers("colours", image_sha256=digests, references=references, box=[None] * 4)
    assert match_answers(FILE, own, TESTS, None) == {"colours": EXPECTED}


def test_tasks_that_are_unknown_or_unclear() -> None:
    with pytest.raises(UserError, match="--task shapes: not a task of this scenario. Expected one of: colours, counts"):
        match_answers(FILE, answers("colours"), TESTS, "shapes")
    with pytest.raises(UserError, match="row 1: field 'task' is 'shapes', expected one of: colours, counts"):
        match_answers(FILE, [Answer(1, "colours-0", "x", task="shapes")], TESTS, None)
    with pytest.raises(UserError, match="ids belong to no task of the scenario, first id: 'z'. Name the task with"):
        match_answers(FILE, [Answer(1, "z", "x")], TESTS, None)
    with pytest.raises(UserError, match="ids belong to colours and counts, first id: 'colours-0'. Name the task with"):
        match_answers(FILE, answers("colours") + answers("counts"), TESTS, None)
