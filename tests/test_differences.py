"""What a failing comparison of two runs says."""

import torch
from safetensors.torch import save

from .conftest import pytest_assertrepr_compare
from .differences import differences


def test_a_line_for_each_file() -> None:
    ones, other = torch.ones(4), torch.tensor([1.0, 1.0, 1.25, 1.0])
    expected = {
        "a.json": b'{"x": 1}',
        "gone": b"",
        "state.safetensors": save({"b": ones, "a": ones.clone()}),
        "same": b"x",
    }
    found = {"a.json": b'{"x": 2}', "new": b"abc", "state.safetensors": save({"b": other, "a": ones}), "same": b"x"}
    assert list(differences(found, expected)) == [
        """a.json: from byte 6: b'{"x": 2}', expected b'{"x": 1}'""",
        "gone: missing",
        "new: should not be there (3 bytes)",
        "state.safetensors: 1 of 2 tensors, at most by 0.25 (b)",
    ]
    assert not list(differences(expected, expected))


def test_shorter_files_and_other_tensors() -> None:
    states = {"state.safetensors": save({"a": torch.ones(2)})}, {"state.safetensors": save({"b": torch.ones(2)})}
    assert list(differences(*states)) == [
        "state.safetensors: other names, shapes, integers or notes: ['a'], expected ['b']"
    ]
    assert list(differences({"a": b"ab"}, {"a": b"abc"})) == [
        "a: 2 bytes, expected 3; one is the beginning of the other"
    ]


def test_pytest_says_it_of_files_only() -> None:
    assert pytest_assertrepr_compare("==", {"a": b"1"}, {"a": b"2"}) == [
        "the files of two runs", "a: from byte 0: b'1', expected b'2'",
    ]  # fmt: skip
    assert pytest_assertrepr_compare("==", {"a": 1}, {"a": 2}) is None
    assert pytest_assertrepr_compare("!=", {"a": b"1"}, {"a": b"1"}) is None
