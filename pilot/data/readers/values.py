"""Checked access to the fields of a row, and what all readers of official files share.

A field that is not as expected raises `FieldError` inside `attempt`, which turns it into a `Rejected` row.
"""

import ast
import io
import math
import tokenize
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from pilot.data.rows import Place, Rejected, Row, Rows, Skipped
from pilot.io.text import JsonError, parse_json

MAX_SHOWN = 80
MAX_LIST_TEXT = 20_000


class FieldError(Exception):
    """A field of a row that is not as expected."""

    def __init__(self, field: str, reason: str) -> None:
        """Name the field and say what was expected and what is there."""
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def shown(value: Any) -> str:
    """A value for a message: short, whatever the value is."""
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
    """Raise `FieldError` with what was expected and what is there, unless valid."""
    if not valid:
        raise FieldError(field, f"expected {expected}, got {shown(value)}")


def mapping(value: Any, field: str = "(whole row)") -> Mapping[str, Any]:
    """The value, which must be an object."""
    expect(isinstance(value, Mapping), field, "an object", value)
    return value


def sequence(value: Any, field: str) -> Sequence[Any]:
    """The value, which must be a list."""
    expect(isinstance(value, list | tuple), field, "a list", value)
    return value


def plain_text(value: Any, field: str) -> str:
    """The value without outer white space: a text that is not blank and can be written as UTF-8."""
    expect(isinstance(value, str) and bool(value.strip()), field, "a text that is not blank", value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FieldError(field, "expected a text, got one with half a surrogate pair") from error
    return value.strip()


def text(row: Mapping[str, Any], field: str) -> str:
    """A field that must be a text; see `plain_text`."""
    return plain_text(row.get(field), field)


def texts(row: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """A field that must be a list of at least one text."""
    values = sequence(row.get(field), field)
    expect(len(values) > 0, field, "at least one text", values)
    return tuple(plain_text(value, f"{field}.{index}") for index, value in enumerate(values))


def listed(value: Any, field: str) -> Any:
    """The value; the list that it writes where it is a text in square brackets (see `list_in`)."""
    in_brackets = isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]")
    return list_in(value, field) if in_brackets else value


def list_in(value: str, field: str) -> Any:
    """A list that is written as text, by JSON or Python.

    Raises:
        FieldError: it is none, or texts without a comma between them (as numpy prints them), which Python would join.
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
            return ast.literal_eval(tree)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError, tokenize.TokenError):
        pass
    raise FieldError(field, f'expected a list, such as ["red", "blue"], got {shown(value)}')


def integer(row: Mapping[str, Any], field: str) -> int:
    """A field that must be an integer from 0 to 2^63 - 1."""
    value = row.get(field)
    valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    expect(valid, field, "an integer from 0 to 2^63 - 1", value)
    return int(row[field])


def identifier(row: Mapping[str, Any], field: str) -> str:
    """A field that must be an integer or a text, as text."""
    return text(row, field) if isinstance(row.get(field), str) else str(integer(row, field))


def numbers(row: Mapping[str, Any], field: str) -> tuple[float, float, float, float]:
    """A field that must be a list of four finite numbers."""
    values = sequence(row.get(field), field)
    expect(len(values) == 4, field, "four numbers", values)
    for index, value in enumerate(values):
        valid = isinstance(value, int | float) and not isinstance(value, bool)
        expect(valid and abs(value) < 1e9 and math.isfinite(value), f"{field}.{index}", "a finite number", value)
    x, y, third, fourth = (float(value) for value in values)
    return x, y, third, fourth


def labels(row: Mapping[str, Any], *fields: str) -> dict[str, str]:
    """The fields that are there (not null), as labels; each must be a text, an integer or a truth value."""
    found: dict[str, str] = {}
    for field in fields:
        value = row.get(field)
        if isinstance(value, bool):
            found[field] = str(value).lower()
        elif value is not None:
            found[field] = identifier(row, field)
    return found


def most_frequent(answers: Sequence[str]) -> str:
    """The most frequent text; of equally frequent ones, the one that comes first."""
    return Counter(answers).most_common(1)[0][0]


def attempt(make: Callable[..., Row], place: Place, item: Any, *arguments: Any) -> Row | Rejected:
    """`make(place, item, *arguments)` with an object as item, or why the item cannot be used."""
    try:
        return make(place, mapping(item), *arguments)
    except FieldError as error:
        return Rejected(place, error.field, error.reason)


def each(items: Iterable[tuple[int | str, Any]], file: str, make: Callable[..., Row], *arguments: Any) -> Rows:
    """`attempt` for every item of a file, given with its index or key."""
    for key, item in items:
        yield attempt(make, Place(file, key), item, *arguments)


def of_split(
    items: Iterable[tuple[int | str, Any]],
    file: str,
    split_of: Callable[[Mapping[str, Any]], Any],
    wanted: Collection[Any],
    make: Callable[[Place, Mapping[str, Any]], Rows],
) -> Rows:
    """The rows of a file's items that are of a wanted split; others are skipped, unusable ones rejected in any split.

    Args:
        items: each with its index or key.
        file: its name.
        split_of: an item's split; raises `FieldError` if it has none.
        wanted: splits whose items are taken.
        make: an item's rows; may raise `FieldError`.
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
    """A field that must be one of the known texts."""
    found = text(row, field)
    expect(found in known, field, f"one of {', '.join(known)}", found)
    return found


def unique(rows: Rows, field: str) -> Rows:
    """The rows; one whose id was there before is rejected for its `field`."""
    seen: set[str] = set()
    for row in rows:
        if isinstance(row, Row):
            if row.id in seen:
                yield Rejected(row.place, field, f"expected a value that occurs once, {shown(row.id)} was there before")
                continue
            seen.add(row.id)
        yield row
