"""Conversion of hub table rows to `pilot.data.rows.Row`."""

from collections.abc import Mapping
from typing import Any

from pilot.data.prompts import GROUND, question
from pilot.data.readers.captions import TrainRows, caption_rows
from pilot.data.readers.hub.sets import Columns
from pilot.data.readers.question_lists import question_pairs, question_rows
from pilot.data.readers.values import (
    FieldError,
    expect,
    identifier,
    labels,
    most_frequent,
    numbers,
    parse_if_list,
    parse_list,
    plain_text,
    sequence,
    text,
)
from pilot.data.readers.vqa_official import human_answers
from pilot.data.rows import Place, RawBox, Rejected, Row, Rows

NEEDED = {
    "vqa": (("question",), ("answer", "answers")),
    "caption": (("captions",),),
    "ground": (("expressions",), ("box",)),
}
"""Required columns by kind: at least one of each group."""


def convert_row(
    place: Place, number: int, item: Mapping[str, Any], image: bytes, columns: Columns, kind: str, per: TrainRows
) -> Rows:
    """Yield the examples of a table row; `number` is the row's id if the table has no column for it."""
    try:
        key = identifier(item, columns.id) if columns.id else str(number)
        attributes = _labels(item, columns)
        if kind == "vqa":
            yield from _questions(place, key, item, image, columns, attributes)
        elif kind == "caption":
            yield from caption_rows(place, key, image, _list(item, str(columns.captions)), per, attributes)
        else:
            yield from _expressions(place, key, item, image, columns, attributes)
    except FieldError as error:
        yield Rejected(place, error.field, error.reason)


def image_bytes(item: Mapping[str, Any], column: str) -> bytes:
    """Return the encoded image of an undecoded image feature, or of a column of bytes.

    Raises:
        FieldError: there are no bytes.
    """
    value = item.get(column)
    data = value.get("bytes") if isinstance(value, Mapping) else value
    expect(isinstance(data, bytes) and len(data) > 0, column, "an image file's bytes inside the table", data)
    return bytes(data)  # type: ignore[arg-type]


def _labels(item: Mapping[str, Any], columns: Columns) -> dict[str, str]:
    found: dict[str, str] = {}
    for label in columns.labels:
        column, _, field = label.partition(".")
        inside = item.get(column) if field else item
        if inside is not None:
            expect(isinstance(inside, Mapping), column, f"an object with the field {field!r}", inside)
            found |= labels(inside, field or column)
    return found


def _list(item: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """Return the texts of a column that holds a text or a list of texts."""
    value = parse_if_list(item.get(column), column)
    values = [value] if isinstance(value, str) else sequence(value, column)
    expect(len(values) > 0, column, "at least one text", values)
    return tuple(plain_text(one, f"{column}.{n}") for n, one in enumerate(values))


def _questions(
    place: Place, key: str, item: Mapping[str, Any], image: bytes, columns: Columns, attributes: Mapping[str, str]
) -> Rows:
    if isinstance(item.get(str(columns.question)), list):
        pairs = question_pairs(item, str(columns.question), columns.answer or "(answer)")
        yield from question_rows(place, key, image, pairs, attributes)
        return
    given = None if columns.answer is None else item.get(columns.answer)
    if columns.answers is not None:
        references = human_answers(_listed(item.get(columns.answers), columns.answers), columns.answers)
    else:
        references = (text(item, str(columns.answer)),)
    answer = most_frequent(references) if given is None else text(item, str(columns.answer))
    instruction = question(text(item, str(columns.question)))
    yield Row(place, key, image, instruction, answer, references, attributes)


def _expressions(
    place: Place, key: str, item: Mapping[str, Any], image: bytes, columns: Columns, attributes: Mapping[str, str]
) -> Rows:
    box = RawBox(numbers(item, str(columns.box)), columns.box_form)
    for n, expression in enumerate(_list(item, str(columns.expressions))):
        instruction = GROUND.format(expression=expression)
        yield Row(place, f"{key}-{n}", image, instruction, "", attributes=attributes, box=box)


def _listed(value: Any, column: str) -> Any:
    """Return a list, also from text or from one list per field (as `datasets` stores sequences of objects)."""
    if isinstance(value, Mapping) and "answer" in value:
        return value["answer"]
    return parse_list(value, column) if isinstance(value, str) else value
