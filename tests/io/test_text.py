"""Text files of others: missing values, byte order marks, rows in either form, and what a mistake looks like."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.io.text import JsonError, decode, first_row, json_rows, parse_json


def test_what_is_no_number_is_missing() -> None:
    assert parse_json('{"a": NaN, "b": [Infinity, -Infinity], "c": 1.5}') == {"a": None, "b": [None, None], "c": 1.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: Expecting value; the file is empty"),
        ('{"a": 1,\n "b": 2,}', "line 2, column 9: .*; there is a comma before the closing bracket; remove it"),
        ('[1, 2, ]', "line 1, column 8: .*; there is a comma before the closing bracket"),
        ("{'a': 1}", "line 1, column 2: .*; this looks like Python; JSON needs double quotes"),
        ('{"a": True}', "line 1, column 7: .*; this looks like Python"),
        ('{"a": [1, 2', "line 1, column 12: .*; the text ends too early; was it cut off?"),
        ('{"a": 1}\n{"a": 2}', "line 2, column 1: Extra data; there is more than one value"),
        ("<!DOCTYPE html>", "; this looks like a web page"),
        ("version https://git-lfs.github.com/spec/v1", "; this is a Git LFS pointer, not the file itself"),
        ('{"a" 1}', "line 1, column 6: Expecting ':' delimiter$"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "limit"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_place_and_a_hint(text: str, message: str) -> None:
    with pytest.raises(JsonError, match=message):
        parse_json(text)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": NaN}\n', [(1, {"a": 1}), (3, {"a": None})]),
        ("a.json", '\n{"a": 1}\n{"a": 2}', [(2, {"a": 1}), (3, {"a": 2})]),
        ("a.json", '[{"a": 1},\n {"a": 2}]', [(0, {"a": 1}), (1, {"a": 2})]),
        ("a.jsonl", '[\n{"a": 1}\n]', [(0, {"a": 1})]),
        ("a.jsonl", '{"a": 1}', [(1, {"a": 1})]),
        ("a.jsonl", '{"a": 1}\n\ufeff{"a": 2}', [(1, {"a": 1}), (2, {"a": 2})]),  # two files put together
        ("a.jsonl", "", []),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_rows_of_lists_and_lines(tmp_path: Path, name: str, text: str, expected: object, encoding: str) -> None:
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert list(json_rows(tmp_path / name)) == expected
    assert decode(text.encode(encoding)) == text
    assert first_row(tmp_path / name) == ({"a": 1} if text else None)


def test_a_line_that_cannot_be_read_is_yielded(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": }\n{"a": 3}')
    (_, first), (number, error), (_, last) = json_rows(tmp_path / "a.jsonl")
    assert (first, last, number) == ({"a": 1}, {"a": 3}, 2)
    assert isinstance(error, JsonError) and str(error) == "column 7: Expecting value"
    (tmp_path / "one.json").write_text('{"a": 1}')
    with pytest.raises(JsonError, match="expected a list of rows or one row per line, got an object"):
        list(json_rows(tmp_path / "one.json"))


@given(st.binary(max_size=60), st.sampled_from(["a.json", "a.jsonl"]))
def test_any_bytes_are_rows_or_one_error(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    first_row(path)
    try:
        list(json_rows(path))
    except ValueError:
        return
