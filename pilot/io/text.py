"""Reading of text files from other programs: byte order marks, JSON with missing values, positions of errors.

All such files are read by this module, so that a file is always read the same way. They are UTF-8 with or without a
byte order mark, or UTF-16 with one. `NaN` and `Infinity` are not valid JSON, but data frames write them for missing
values; here they are read as null.
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
_MAX_PREFIX = 2**20
"""Number of characters at the start of a file that are searched for its first value."""


class JsonError(ValueError):
    """An error in a JSON text, with its position and likely cause."""


def _missing(_: str) -> None:
    """Read a constant that is not valid JSON as a missing value."""


_DECODER = json.JSONDecoder(parse_constant=_missing)


def encoding_of(path: Path) -> str:
    """Return the encoding of a file by its byte order mark; UTF-8 without one."""
    with path.open("rb") as file:
        return _encoding(file.read(2))


def decode(data: bytes, errors: str = "strict") -> str:
    """Decode the bytes of a whole file; raise UnicodeDecodeError if they are not text."""
    return data.decode(_encoding(data), errors)


def open_text(path: Path, newline: str = "\n") -> TextIO:
    """Open a text file to be read line by line; bytes that are not UTF-8 become lone surrogates.

    Args:
        path: the file.
        newline: as in `open`; by default only a line feed ends a line.
    """
    encoding = encoding_of(path)
    errors = "strict" if encoding == "utf-16" else "surrogateescape"
    return path.open(encoding=encoding, errors=errors, newline=newline)


def is_blank(line: str) -> bool:
    """Check whether a line contains only white space."""
    return not line.strip(string.whitespace)


def is_unicode(text: str) -> bool:
    """Check whether a text can be encoded as UTF-8: it contains no lone surrogates."""
    return text.encode("utf-8", "ignore").decode("utf-8") == text


def parse_json(text: str, collect: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None) -> Any:
    """Parse the JSON value in `text`, with null for `NaN` and `Infinity`.

    Args:
        text: one value.
        collect: makes an object from its pairs; may raise ValueError.

    Raises:
        JsonError: the text is not JSON; the message has line, column and the likely cause.
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
    """Yield the rows of a JSON list, by index from 0, or of JSON lines, by line number from 1.

    A file that starts with `[` is a list; any other has lines if it is named `.jsonl`, or if it has several lines and
    the first is a whole value. A line that is not JSON is yielded as `JsonError`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not text, not JSON (`JsonError`), or neither a list nor lines.
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
    """Return the first row of a JSON list or of JSON lines; None if it cannot be read."""
    try:
        with open_text(path) as file:
            start = file.read(_MAX_PREFIX).lstrip().removeprefix("[").lstrip()
        return json.JSONDecoder().raw_decode(start)[0]
    except (OSError, ValueError, RecursionError):
        return None


def _encoding(start: bytes) -> str:
    return "utf-16" if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _has_lines(path: Path) -> bool:
    """Check for JSON lines: not a list, and named `.jsonl` or with several lines, the first of them a whole value."""
    with open_text(path) as file:
        if file.read(_MAX_PREFIX).lstrip().startswith("["):
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
    """Describe the likely cause of an error; return an empty string if it is unknown."""
    rest, start = text[error.pos : error.pos + 80], text.lstrip()[:80]
    if not start:
        return "the file is empty"
    if start.startswith("<"):
        return "this looks like a web page"
    if start.startswith("version https://git-lfs"):
        return "this is a Git LFS pointer, not the file itself"
    if not rest.strip() or error.msg.startswith("Unterminated string"):
        return "the text ends too early; was it cut off?"
    if _BRACKET.match(rest) and (rest.startswith(",") or text[: error.pos].rstrip().endswith(",")):
        return "there is a comma before the closing bracket; remove it"
    if _PYTHON.match(rest):
        return "this looks like Python; JSON needs double quotes, true, false and null"
    return "there is more than one value" if error.msg == "Extra data" else ""
