"""Checked access to the fields of a row, and functions shared by all readers of official files.

An invalid field raises `FieldError`, which readers convert to a `Rejected` row (see `make_row`).
"""

import ast
import io
import math
import tokenize
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pilot.data.rows import Place, Rejected, Row, Rows, Skipped
from pilot.io.text import JsonError, is_unicode, parse_json

MAX_SHOWN = 80
MAX_LIST_TEXT = 20_000
_LISTS = (ast.List, ast.Tuple, ast.Set)


class FieldError(Exception):
    """Error for an invalid field of a row."""

    def __init__(self, field: str, reason: str) -> None:
        """Store the field's name and the reason: the expected and the actual value."""
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def shown(value: Any) -> str:
    """Format any value briefly for a message."""
    if isinstance(value, str | bytes):
        text = repr(value[:MAX_SHOWN])
        return f"{text}..." if len(value) > MAX_SHOWN else text
    if isinstance(value, Sequence):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return f"an object of {len(value)} fields"
    if isinstance(value, int) and value.bit_length() > 64:
        return "an integer of more than 64 bits"
    return "null" if value is None else repr(value)[:MAX_SHOWN]


def expect(valid: bool, field: str, expected: str, value: Any) -> None:
    """Raise `FieldError` with the expected and the actual value, unless valid."""
    if not valid:
        raise FieldError(field, f"expected {expected}, got {shown(value)}")


def mapping(value: Any, field: str = "(whole row)") -> Mapping[str, Any]:
    """Return the value, which must be an object."""
    expect(isinstance(value, Mapping), field, "an object", value)
    return value


def sequence(value: Any, field: str) -> Sequence[Any]:
    """Return the value, which must be a list."""
    expect(isinstance(value, list | tuple), field, "a list", value)
    return value


def plain_text(value: Any, field: str) -> str:
    """Return the value without outer white space; it must be a non-blank text that can be encoded as UTF-8."""
    expect(isinstance(value, str) and bool(value.strip()), field, "a text that is not blank", value)
    if not is_unicode(value):
        raise FieldError(field, "expected a text, got one with an unpaired surrogate")
    return str(value.strip())


def text(row: Mapping[str, Any], field: str) -> str:
    """Return a field that must be a text; see `plain_text`."""
    return plain_text(row.get(field), field)


def texts(row: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """Return a field that must be a list of at least one text."""
    values = sequence(row.get(field), field)
    expect(len(values) > 0, field, "at least one text", values)
    return tuple(plain_text(value, f"{field}.{index}") for index, value in enumerate(values))


def parse_if_list(value: Any, field: str) -> Any:
    """Parse a text that is a list (see `parse_list`); return any other value unchanged.

    In square brackets it must be one. In parentheses or braces it is one if it holds quoted texts and parses: `(left)`
    and `(1, 2)` are texts.
    """
    ends = value.strip()[:1] + value.strip()[-1:] if isinstance(value, str) else ""
    if ends == "[]":
        return parse_list(value, field)
    if ends in ("()", "{}"):
        with suppress(FieldError):
            found = parse_list(value, field)
            if isinstance(found, list) and any(isinstance(each, str) for each in found):
                return found
    return value


def parse_list(value: str, field: str) -> Any:
    """Parse a list that is written as text in JSON or Python syntax; Python's tuples and sets are lists, too.

    Raises:
        FieldError: not valid in either syntax, or strings without a comma between them (as numpy prints them), which
            Python would join.
    """
    expect(len(value) <= MAX_LIST_TEXT, field, f"a list of at most {MAX_LIST_TEXT} characters", value)
    try:
        return parse_json(value)
    except JsonError:
        pass
    try:
        tree = ast.parse(value.strip(), mode="eval")
        tokens = [token.type for token in tokenize.generate_tokens(io.StringIO(value).readline)]
        constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        if tokens.count(tokenize.STRING) == sum(isinstance(value, str | bytes) for value in constants):
            body = tree.body
            return (
                [ast.literal_eval(each) for each in body.elts] if isinstance(body, _LISTS) else ast.literal_eval(body)
            )
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError, tokenize.TokenError):
        pass
    raise FieldError(field, f'expected a list, such as ["red", "blue"], got {shown(value)}')


def integer(row: Mapping[str, Any], field: str) -> int:
    """Return a field that must be an integer from 0 to 2^63 - 1."""
    value = row.get(field)
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    expect(valid, field, "an integer from 0 to 2^63 - 1", value)
    return int(row[field])


def identifier(row: Mapping[str, Any], field: str) -> str:
    """Return a field that must be an integer or a text, as text."""
    return text(row, field) if isinstance(row.get(field), str) else str(integer(row, field))


def numbers(row: Mapping[str, Any], field: str) -> tuple[float, float, float, float]:
    """Return a field that must be a list of four finite numbers."""
    values = sequence(row.get(field), field)
    expect(len(values) == 4, field, "four numbers", values)
    for index, value in enumerate(values):
        valid = isinstance(value, int | float) and not isinstance(value, bool)
        expect(valid and abs(value) < 1e9 and math.isfinite(value), f"{field}.{index}", "a finite number", value)
    x, y, third, fourth = (float(value) for value in values)
    return x, y, third, fourth


def labels(row: Mapping[str, Any], *fields: str) -> dict[str, str]:
    """Return the fields that are not null as labels; each must be a text, an integer or a Boolean."""
    found: dict[str, str] = {}
    for field in fields:
        value = row.get(field)
        if isinstance(value, bool):
            found[field] = str(value).lower()
        elif value is not None:
            found[field] = identifier(row, field)
    return found


def most_frequent(answers: Sequence[str]) -> str:
    """Return the most frequent text; on a tie, the first one."""
    return Counter(answers).most_common(1)[0][0]


def make_row(make: Callable[..., Row], place: Place, item: Any, *arguments: Any) -> Row | Rejected:
    """Return `make(place, item, *arguments)` for an item that is an object, or why the item cannot be used."""
    try:
        return make(place, mapping(item), *arguments)
    except FieldError as error:
        return Rejected(place, error.field, error.reason)


def make_rows(items: Iterable[tuple[int | str, Any]], file: str, make: Callable[..., Row], *arguments: Any) -> Rows:
    """Yield the result of `make_row` for every item of a file, given with its index or key."""
    for key, item in items:
        yield make_row(make, Place(file, key), item, *arguments)


def rows_of_split(
    items: Iterable[tuple[int | str, Any]],
    file: str,
    split_of: Callable[[Mapping[str, Any]], Any],
    wanted: Collection[Any],
    make: Callable[[Place, Mapping[str, Any]], Rows],
) -> Rows:
    """Yield the rows of a file's items of wanted splits; skip other items, and reject unusable items of any split.

    Args:
        items: items with their index or key.
        file: name of the file.
        split_of: returns an item's split; raises `FieldError` if it has none.
        wanted: splits whose items are used.
        make: returns an item's rows; may raise `FieldError`.
    """
    for key, value in items:
        place = Place(file, key)
        try:
            item = mapping(value)
            if (found := split_of(item)) in wanted:
                yield from make(place, item)
            else:
                yield Skipped(place, f"split {found}")
        except FieldError as error:
            yield Rejected(place, error.field, error.reason)


def one_of(row: Mapping[str, Any], field: str, known: Sequence[str]) -> str:
    """Return a field that must be one of the known texts."""
    found = text(row, field)
    expect(found in known, field, f"one of {', '.join(known)}", found)
    return found


def unique(rows: Rows, field: str) -> Rows:
    """Yield the rows; reject a row whose id occurred before, for its `field`."""
    seen: set[str] = set()
    for row in rows:
        if isinstance(row, Row):
            if row.id in seen:
                yield Rejected(row.place, field, f"expected a unique value, {shown(row.id)} occurred before")
                continue
            seen.add(row.id)
        yield row
