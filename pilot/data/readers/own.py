"""`own`: a user's examples, as JSON lines or a list (`.jsonl`, `.json`) or a table (`.csv`, `.tsv`).

Columns: `image` (path below the image folder); the request, as `question` (gets LLaVA-1.5's line on short answers),
`expression` (the object to find; grounding) or `instruction` (used unchanged); the target, as `answer`, `answers`,
`caption`, `captions` or `box`; `split` (`train` or `test`; without it, a row is for training) and `id` (default: the
line). Every other column of texts or numbers becomes an attribute, by which data can be partitioned over clients.
Several answers are a list in JSON; in a table, a list as text or separated by `|`. `answer` is the training target;
without it, the most frequent of `answers` (on a tie, the first), or the first of `captions`. A box is four numbers, in
a table `x1, y1, x2, y2`.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import model_validator

from pilot.config.base import Model
from pilot.data.prompts import CAPTION, GROUND, question
from pilot.data.readers.files import read_json_rows, reading
from pilot.data.readers.tables import Record, records
from pilot.data.readers.values import FieldError, mapping, parse_if_list, shown
from pilot.data.rows import BoxForm, Place, RawBox, Rejected, Row, Rows, Skipped
from pilot.errors import UserError
from pilot.io.text import open_text

REQUEST_COLUMNS = {
    "vqa": ("question", "instruction"),
    "caption": ("instruction",),
    "ground": ("expression", "instruction"),
}
TARGET_COLUMNS = {"vqa": ("answer", "answers"), "caption": ("caption", "captions"), "ground": ("box",)}
COLUMNS = ("image", "question", "instruction", "expression", "answer", "answers", "caption", "captions", "box",
           "split", "id")  # fmt: skip
JSON = (".jsonl", ".json")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
_BRACKETS = re.compile(r"^[\[(]|[\])]$")


class Options(Model):
    """Options of `own`.

    Attributes:
        file: `.jsonl`, `.json`, `.csv` or `.tsv`.
        images: folder that the rows' image paths are relative to.
        box_form: meaning of the four numbers of a box; required for kind `ground`.
        train_split: value of the column `split` for training rows.
        test_split: value for test rows; rows with another value are skipped and counted.
        kind: the task's kind.
    """

    file: str
    images: str = ""
    box_form: BoxForm | None = None
    train_split: str = "train"
    test_split: str = "test"
    kind: str

    @model_validator(mode="after")
    def _complete(self) -> "Options":
        if self.kind == "ground" and self.box_form is None:
            raise ValueError(
                "box_form is needed for grounding: pixels_xyxy, pixels_xywh, fractions_xyxy, fractions_xywh or "
                "padded_square_xyxy"
            )
        return self


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield the rows of a split.

    Raises:
        UserError: a missing file, an unknown suffix, or a table without the required columns.
    """
    wanted = options.train_split if split == "train" else options.test_split
    for line, values in _lines(root / options.file, options.kind):
        place = Place(options.file, line)
        try:
            if isinstance(values, FieldError):
                raise values
            found = _text(mapping(values), "split") or options.train_split
            yield _row(options, place, values) if found == wanted else Skipped(place, f"split {found[:80]}")
        except FieldError as error:
            yield Rejected(place, error.field, error.reason)


def _lines(path: Path, kind: str) -> Iterator[tuple[int, Any]]:
    """Yield every example, or `FieldError`, with its line (the last one, if a table's field has line breaks)."""
    suffix = path.suffix.lower()
    if suffix in JSON:
        yield from read_json_rows(path)
    elif suffix in SEPARATORS:
        with reading(path), open_text(path, newline="") as file:
            yield from _table(path, kind, records(file, SEPARATORS[suffix]))
    else:
        raise UserError(f"{path}: expected a .jsonl, .json, .csv or .tsv file, got suffix {path.suffix!r}. Rename it.")


def _table(path: Path, kind: str, table: Iterator[Record]) -> Iterator[tuple[int, dict[str, str] | FieldError]]:
    names: list[str] | None = None
    for line, fields in table:
        if isinstance(fields, str):
            yield line, FieldError("line", fields)
        elif names is None:
            names = _header(path, kind, line, fields)
        elif len(fields) != len(names):
            yield line, FieldError("line", f"expected {len(names)} fields, got {len(fields)}")
        else:
            yield line, {name: value for name, value in zip(names, fields, strict=True) if value != ""}


def _header(path: Path, kind: str, line: int, fields: list[str]) -> list[str]:
    names = [field.strip() for field in fields]
    needed = [("image",), TARGET_COLUMNS[kind]] + ([] if kind == "caption" else [REQUEST_COLUMNS[kind]])
    for choice in needed:
        if not set(choice) & set(names):
            raise UserError(
                f"{path}: line {line}: expected a column {' or '.join(choice)} for kind {kind}, found: "
                f"{', '.join(names)}. Add or rename it."
            )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path}: line {line}: column {repeated[0]!r} occurs more than once. Rename one.")
    return names


def _row(options: Options, place: Place, values: Mapping[str, Any]) -> Row:
    answers = _answers(options.kind, values)
    chosen = _single(values, "answer", "answers") if options.kind == "vqa" else None
    attributes, left_out = _attributes(values)
    frequent = Counter(answers).most_common(1)[0][0] if answers else ""
    best = answers[0] if options.kind == "caption" else frequent
    return Row(
        place=place,
        id=_text(values, "id") or str(place.row),
        image=_required_text(values, "image"),
        instruction=_instruction(options.kind, values),
        answer=chosen or best,
        references=tuple(answers),
        attributes=attributes,
        box=_box(options, values.get("box")) if options.kind == "ground" else None,
        left_out=left_out,
    )


def _instruction(kind: str, values: Mapping[str, Any]) -> str:
    names = [name for name in REQUEST_COLUMNS[kind] if values.get(name) not in (None, "")]
    if len(names) > 1:
        raise FieldError("instruction", f"expected one of {' and '.join(names)}, got both")
    if not names and kind == "caption":
        return CAPTION
    text = _required_text(values, names[0] if names else REQUEST_COLUMNS[kind][0])
    if names[0] == "question":
        return question(text)
    return GROUND.format(expression=text.rstrip(". ")) if names[0] == "expression" else text


def _answers(kind: str, values: Mapping[str, Any]) -> list[str]:
    """Return acceptable answers or captions; none for grounding."""
    if kind == "ground":
        return []
    one, several = TARGET_COLUMNS[kind]
    value = parse_if_list(values.get(several), several)
    if value in (None, ""):
        return [_single(values, one, several) or _required_text(values, one)]
    if isinstance(value, str):
        value = [text.strip() for text in value.split("|")]
    if not isinstance(value, list) or not value:
        raise FieldError(several, "expected a list of texts")
    texts = [_as_text(several, item) for item in value]
    if not all(text.strip() for text in texts):
        raise FieldError(several, "expected a list of texts without empty ones")
    return texts


def _single(values: Mapping[str, Any], one: str, several: str) -> str:
    """Return the text of a column for one text; empty if there is none."""
    value = values.get(one)
    with suppress(FieldError):  # a text in brackets need not be a list
        value = parse_if_list(value, one)
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        raise FieldError(one, f"expected one text, got a list; name the column {several}")
    return _text(values, one)


def _attributes(values: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return labels by column, and the columns that are not labels, since they hold neither text nor number."""
    others = {name: value for name, value in values.items() if name not in COLUMNS and value != ""}
    left_out = tuple(name for name, value in others.items() if isinstance(value, list | dict) or _is_infinite(value))
    return {name: _label(name, value) for name, value in others.items() if name not in left_out}, left_out


def _box(options: Options, value: Any) -> RawBox:
    assert options.box_form is not None
    if isinstance(value, str):
        value = _BRACKETS.sub("", value.strip()).replace(",", " ").split()
    if not isinstance(value, list) or len(value) != 4 or any(isinstance(item, bool) for item in value):
        raise FieldError("box", "expected four numbers")
    try:
        x, y, z, w = (float(item) for item in value)
    except (TypeError, ValueError, OverflowError):
        raise FieldError("box", "expected four numbers") from None
    return RawBox((x, y, z, w), options.box_form)


def _required_text(values: Mapping[str, Any], name: str) -> str:
    text = _text(values, name)
    if not text:
        raise FieldError(name, "is missing or empty")
    return text


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return "" if value is None else _as_text(name, value).strip()


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or _is_infinite(value):
        raise FieldError(name, f"expected text or a number, got {shown(value)}")
    return json.dumps(value)


def _is_infinite(value: Any) -> bool:
    """Check for a number that is not finite, such as 1e999."""
    return isinstance(value, float) and not math.isfinite(value)


def _label(name: str, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return _as_text(name, value)
