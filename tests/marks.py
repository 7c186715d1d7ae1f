"""A grid of which every run takes a few points, and `make test-exhaustive` the others."""

from collections.abc import Iterable
from typing import Any

import pytest


def few_of(few: Iterable[Any], grid: Iterable[Any]) -> list[Any]:
    """Parameters: `few` as they are, the rest of `grid` marked exhaustive."""
    taken = list(few)
    others = [each for each in grid if each not in taken]
    return [*taken, *(pytest.param(*_values(each), marks=pytest.mark.exhaustive) for each in others)]


def _values(each: Any) -> tuple[Any, ...]:
    return each if isinstance(each, tuple) else (each,)
