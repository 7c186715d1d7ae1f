"""Text files that others wrote: byte order marks, JSON with missing values, and where a mistake is.

One reader for all of them, so that a file is read the same way wherever it is named. UTF-8 with or without a byte
order mark, and UTF-16 with one. `NaN` and `Infinity` are no JSON; data frames write them for missing values, and here
they are null.
"""

import codecs
import json
import re
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

_BRACKET = re.compile(r",?\s*[\]}]")
_PYTHON = re.compile(r"'|True\b|False\b|None\b")
_PEEKED = 2**20
"""Characters in which the first value of a file is looked for."""


class JsonError(ValueError):
    """A mistake in a JSON text: what, where, and what the text looks like."""


def _missing(_: str) -> None:
    """Take a constant that JSON does not have for a missing value."""


_DECODER = json.JSONDecoder(parse_constant=_missing)


def encoding_of(path: Path) -> str:
    """Name the encoding of a file by its byte order mark; UTF-8 without one."""
    with path.open("rb") as file:
        return _encoding(file.read(2))


def decode(data: bytes, errors: str = "strict") -> str:
    """The text of a whole file; raises UnicodeDecodeError where it is none."""
    return data.decode(_encoding(data), errors)


def open_text(path: Path, newline: str = "\n") -> TextIO:
    """Open a text file to be read line by line; bytes that are no UTF-8 become half surrogate pairs.

    Args:
        path: the file.
        newline: as in `open`; by default only a line feed ends a line.
    """
    encoding = encoding_of(path)
    errors = "strict" if encoding == "utf-16" else "surrogateescape"
    return path.open(encoding=encoding, errors=errors, newline=newline)


def is_blank(line: str) -> bool:
    """Tell whether a line has nothing but white space."""
    return not line.strip(string.whitespace)


def parse_json(text: str, collect: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None) -> Any:
    """The JSON value in `text`, with null for `NaN` and `Infinity`.

    Args:
        text: one value.
        collect: makes an object of its pairs; may raise ValueError.

    Raises:
        JsonError: says line, column and what the text looks like.
    """
    try:
        decoder = _DECODER if collect is None else json.JSONDecoder(parse_constant=_missing, object_pairs_hook=collect)
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        hint = _hint(text, error)
        raise JsonError(f"line {error.lineno}, column {error.colno}: {error.msg}{hint and '; '}{hint}") from error
    except RecursionError as error:
        raise JsonError("nested too deeply") from error
    except ValueError as error:
        raise JsonError(str(error)) from error


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a JSON list, by index from 0, or of JSON lines, by line from 1, whatever the file is called.

    A line that is not JSON is yielded as `JsonError`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a text, not JSON (`JsonError`), or neither a list nor lines.
    """
    if not _has_lines(path):
        rows = parse_json(decode(path.read_bytes()))
        if not isinstance(rows, list):
            raise JsonError(f"expected a list of rows or one row per line, got {_kind(rows)}")
        yield from enumerate(rows)
        return
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not is_blank(line):
                yield number, _row(line)


def first_row(path: Path) -> Any:
    """The first row of a JSON list or of JSON lines; None where it cannot be read."""
    try:
        with open_text(path) as file:
            start = file.read(_PEEKED).lstrip().removeprefix("[").lstrip()
        return json.JSONDecoder().raw_decode(start)[0]
    except (OSError, ValueError, RecursionError):
        return None


def _encoding(start: bytes) -> str:
    return "utf-16" if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _has_lines(path: Path) -> bool:
    """Tell JSON lines from one document: no list, and called .jsonl or with a whole value in the first of its lines."""
    with open_text(path) as file:
        if file.read(_PEEKED).lstrip().startswith("["):
            return False
    if path.suffix.lower() == ".jsonl":
        return True
    with open_text(path) as file:
        filled = (line for line in file if not is_blank(line))
        return not isinstance(_row(next(filled, "")), JsonError) and next(filled, None) is not None


def _row(line: str) -> Any:
    try:
        return parse_json(line.removeprefix("\ufeff"))
    except JsonError as error:
        return JsonError(str(error).removeprefix("line 1, "))


def _kind(value: Any) -> str:
    return "an object" if isinstance(value, dict) else type(value).__name__


def _hint(text: str, error: json.JSONDecodeError) -> str:
    """Say what the mistake looks like; nothing where it is not known."""
    rest, start = text[error.pos : error.pos + 80], text.lstrip()[:80]
    if not start:
        return "the file is empty"
    if start.startswith("<"):
        return "this looks like a web page"
    if start.startswith("version https://git-lfs"):
        return "this is a pointer of Git LFS, not the file"
    if not rest.strip():
        return "the text ends too early; was it cut off?"
    if _BRACKET.match(rest) and (rest.startswith(",") or text[: error.pos].rstrip().endswith(",")):
        return "there is a comma before the closing bracket; remove it"
    if _PYTHON.match(rest):
        return "this looks like Python; write texts in double quotes, and true, false, null"
    return "there is more than one value" if error.msg == "Extra data" else ""
