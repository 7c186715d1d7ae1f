"""Items that hold a list of questions and a list of their answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pilot.data.prompts import question
from pilot.data.readers.values import FieldError, expect, plain_text, sequence
from pilot.data.rows import Place, Rejected, Row, Rows


@dataclass(frozen=True)
class QuestionPairs:
    """Questions with their answers as given in the item, and the names of the two fields."""

    pairs: list[tuple[Any, Any]]
    questions: str
    answers: str


def question_pairs(item: Mapping[str, Any], questions: str, answers: str) -> QuestionPairs:
    """Pair the questions and answers of an item.

    Raises:
        FieldError: a field is not a list, there is no question, or the number of answers differs.
    """
    asked, given = sequence(item.get(questions), questions), sequence(item.get(answers), answers)
    expect(len(asked) > 0, questions, "at least one question", asked)
    expect(len(asked) == len(given), answers, f"{len(asked)} answers, one per question", given)
    return QuestionPairs(list(zip(asked, given, strict=True)), questions, answers)


def question_rows(
    place: Place, key: str, image: str | bytes, asked: QuestionPairs, attributes: Mapping[str, str]
) -> Rows:
    """Yield one row per question, `<key>-<number>`; reject only the questions whose texts cannot be used."""
    for n, (one, other) in enumerate(asked.pairs):
        try:
            instruction = question(plain_text(one, f"{asked.questions}.{n}"))
            answer = plain_text(other, f"{asked.answers}.{n}")
            yield Row(place, f"{key}-{n}", image, instruction, answer, (answer,), attributes)
        except FieldError as error:
            yield Rejected(place, error.field, error.reason)
