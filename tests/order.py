"""Which tests share a process, and what is started first."""

import os
from collections.abc import Iterator

import pytest

from .smoke import VARIABLE

HEAVY: tuple[str, ...] = ()
"""The files that take longest, longest first: whatever process is free last should be left with a short one."""


def arrange(items: list[pytest.Item]) -> None:
    """Sort by weight and group by file, so that fixtures of a module are made once.

    Without results of the smoke targets to read, all tests that need them share one process, which makes them once.
    """
    shared = set() if os.environ.get(VARIABLE) else {_file(item) for item in items if "smoke_run" in _fixtures(item)}
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("smoke" if _file(item) in shared else _file(item)))
    place = {file: number for number, file in enumerate(HEAVY)}
    items.sort(key=lambda item: place.get(_file(item), len(place)))


def _file(item: pytest.Item) -> str:
    return item.nodeid.split("::")[0]


def _fixtures(item: pytest.Item) -> Iterator[str]:
    yield from getattr(item, "fixturenames", ())
