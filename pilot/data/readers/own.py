"""`own`: anyone's own examples, one per line, as JSON lines (`.jsonl`) or a table (`.csv`, `.tsv`).

Columns: `image` (path below the image folder); what is asked, as `question` (gets LLaVA-1.5's line on short answers),
`expression` (what to find; grounding) or `instruction` (taken as it is); what is right, as `answer`, `answers`,
`caption`, `captions` or `box`; `split` (`train` or `test`; without it a row is for training) and `id` (the line by
default). Every other column becomes an attribute, by which data can be split over clients. Several answers are a list
in JSON and separated by `|` in a table. `answer` is what is learnt; without it, the most frequent of `answers` (the
first of equally frequent ones), or the first of `captions`. A box is four numbers, in a table `x1, y1, x2, y2`.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import model_validator

from pilot.data.prompts import CAPTION, GROUND, question
from pilot.data.rows import BoxForm, Place, RawBox, Rejected, Row, Rows, Skipped
from pilot.errors import UserError
from pilot.settings import Model

ASKED = {
    "vqa": ("question", "instruction"),
    "caption": ("instruction",),
    "ground": ("expression", "instruction"),
}
RIGHT = {"vqa": ("answer", "answers"), "caption": ("caption", "captions"), "ground": ("box",)}
COLUMNS = ("image", "question", "instruction", "expression", "answer", "answers", "caption", "captions", "box",
           "split", "id")  # fmt: skip
SEPARATORS = {".csv": ",", ".tsv": "\t"}
_BRACKETS = re.compile(r"^[\[(]|[\])]$")


class Own(Model):
    """Options of `own`.

    Attributes:
        file: `.jsonl`, `.csv` or `.tsv`.
        images: folder that the rows' image paths are relative to.
        box_form: how the four numbers mean a box; required for kind `ground`.
        train_split: value of the column `split` for training rows.
        test_split: value for test rows; rows with another value are skipped and counted.
        kind: the task's.
    """

    file: str
    images: str = ""
    box_form: BoxForm | None = None
    train_split: str = "train"
    test_split: str = "test"
    kind: str

    @model_validator(mode="after")
    def _complete(self) -> "Own":
        if self.kind == "ground" and self.box_form is None:
            raise ValueError(
                "box_form is needed for grounding: pixels_xyxy, pixels_xywh, fractions_xyxy, fractions_xywh or "
                "padded_square_xyxy"
            )
        return self


class _Wrong(Exception):
    """A field that cannot be used."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason


def read(options: Own, root: Path, split: str) -> Rows:
    """The rows of a split.

    Raises:
        UserError: no such file, an unknown suffix, or a table without the columns that are needed.
    """
    wanted = options.train_split if split == "train" else options.test_split
    for line, values in _lines(root / options.file, options.kind):
        place = Place(options.file, line)
        if isinstance(values, _Wrong):
            yield Rejected(place, values.field, values.reason)
            continue
        try:
            found = _text(values, "split") or options.train_split
            yield _row(options, place, values) if found == wanted else Skipped(place, f"split {found}")
        except _Wrong as wrong:
            yield Rejected(place, wrong.field, wrong.reason)


def _lines(path: Path, kind: str) -> Iterator[tuple[int, dict[str, Any] | _Wrong]]:
    """Every example with its line (the last one, where a table's field holds line breaks)."""
    try:
        if path.suffix == ".jsonl":
            with path.open("rb") as file:
                yield from ((number, _object(line)) for number, line in enumerate(file, start=1) if line.strip())
        elif path.suffix in SEPARATORS:
            with path.open("rb") as file:
                text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
                yield from _table(path, kind, text)
        else:
            raise UserError(f"{path}: expected a .jsonl, .csv or .tsv file, got suffix {path.suffix!r}. Rename it.")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Name an existing file.") from error


def _object(line: bytes) -> dict[str, Any] | _Wrong:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return _Wrong("line", "not valid JSON")
    return value if isinstance(value, dict) else _Wrong("line", "expected a JSON object")


def _table(path: Path, kind: str, text: io.TextIOWrapper) -> Iterator[tuple[int, dict[str, Any] | _Wrong]]:
    table = csv.reader(text, delimiter=SEPARATORS[path.suffix], strict=True)
    names: list[str] | None = None
    while True:
        first = table.line_num + 1
        try:
            fields = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            reason = f"lines {first} to {table.line_num}: not readable as a table ({error})"
            yield table.line_num, _Wrong("line", reason)
            continue
        if names is None:
            names = _header(path, kind, fields)
        elif any(_reads_like_rows(field, table.dialect.delimiter, len(names)) for field in fields):
            lines = f"lines {first} to {table.line_num}"
            reason = f"{lines}: a text in quotes reads like several rows; is a quote not closed?"
            yield table.line_num, _Wrong("line", reason)
        elif len(fields) != len(names) and fields:
            yield table.line_num, _Wrong("line", f"expected {len(names)} fields, got {len(fields)}")
        elif fields:
            yield table.line_num, {name: value for name, value in zip(names, fields, strict=True) if value != ""}


def _header(path: Path, kind: str, fields: list[str]) -> list[str]:
    names = [field.strip() for field in fields]
    needed = [("image",), RIGHT[kind]] + ([] if kind == "caption" else [ASKED[kind]])
    for choice in needed:
        if not set(choice) & set(names):
            raise UserError(
                f"{path}: line 1: expected a column {' or '.join(choice)} for kind {kind}, found: "
                f"{', '.join(names)}. Add or rename it."
            )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path}: line 1: column {repeated[0]!r} occurs more than once. Rename one.")
    return names


def _row(options: Own, place: Place, values: Mapping[str, Any]) -> Row:
    answers = _answers(options.kind, values)
    chosen = _text(values, "answer") if options.kind == "vqa" else None
    frequent = Counter(answers).most_common(1)[0][0] if answers else ""
    best = answers[0] if options.kind == "caption" else frequent
    return Row(
        place=place,
        id=_text(values, "id") or str(place.row),
        image=_needed(values, "image"),
        instruction=_instruction(options.kind, values),
        answer=chosen or best,
        references=tuple(answers),
        attributes={name: _label(name, value) for name, value in values.items() if name not in COLUMNS and value != ""},
        box=_box(options, values.get("box")) if options.kind == "ground" else None,
    )


def _instruction(kind: str, values: Mapping[str, Any]) -> str:
    names = [name for name in ASKED[kind] if values.get(name) not in (None, "")]
    if len(names) > 1:
        raise _Wrong("instruction", f"expected one of {' and '.join(names)}, got both")
    if not names and kind == "caption":
        return CAPTION
    text = _needed(values, names[0] if names else ASKED[kind][0])
    if names[0] == "question":
        return question(text)
    return GROUND.format(expression=text.rstrip(". ")) if names[0] == "expression" else text


def _answers(kind: str, values: Mapping[str, Any]) -> list[str]:
    """Acceptable answers or captions; none for grounding."""
    if kind == "ground":
        return []
    one, several = RIGHT[kind]
    value = values.get(several)
    if value in (None, ""):
        return [_needed(values, one)]
    if isinstance(value, str):
        value = [text.strip() for text in value.split("|")]
    if not isinstance(value, list) or not value:
        raise _Wrong(several, "expected a list of texts")
    texts = [_as_text(several, item) for item in value]
    if not all(text.strip() for text in texts):
        raise _Wrong(several, "expected a list of texts without empty ones")
    return texts


def _box(options: Own, value: Any) -> RawBox:
    assert options.box_form is not None
    if isinstance(value, str):
        value = _BRACKETS.sub("", value.strip()).replace(",", " ").split()
    if not isinstance(value, list) or len(value) != 4 or any(isinstance(item, bool) for item in value):
        raise _Wrong("box", "expected four numbers")
    try:
        x, y, z, w = (float(item) for item in value)
    except (TypeError, ValueError, OverflowError):
        raise _Wrong("box", "expected four numbers") from None
    return RawBox((x, y, z, w), options.box_form)


def _needed(values: Mapping[str, Any], name: str) -> str:
    text = _text(values, name)
    if not text:
        raise _Wrong(name, "is missing or empty")
    return text


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return "" if value is None else _as_text(name, value).strip()


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(name, f"expected text or a number, got {type(value).__name__}")
    return json.dumps(value)


def _label(name: str, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return _as_text(name, value)


def _reads_like_rows(field: str, separator: str, num_columns: int) -> bool:
    """Whether a later line of a field has the separators of a whole row, as after a quote that nobody closed."""
    return num_columns > 1 and any(line.count(separator) >= num_columns - 1 for line in field.splitlines()[1:])
