"""A grid of which every run takes a few points, and `make test-exhaustive` the others."""

from collections.abc import Iterable
from typing import Any

import pytest

from pilot.methods.catalogue import METHODS

ALIKE = (
    *("fedavgm", "fedyogi", "fedadagrad", "feddyn", "fedper", "pfedme", "fedit", "ffa_lora", "fedsa_lora", "hetlora"),
    *("fedrot_lora", "lora_fair", "fedasmu", "taskavg_plus", "pilot_fedavg_text", "pilot_exact_ata"),
    *("pilot_shared_a", "pilot_gap_ata", "pilot_momentum"),
)
"""Methods that use no part of the driver, of messages or of checkpoints that others do not use."""
DIFFERENT = tuple(name for name in METHODS if name not in ALIKE)


def few_of(few: Iterable[Any], grid: Iterable[Any]) -> list[Any]:
    """Parameters: `few` as they are, the rest of `grid` marked exhaustive."""
    taken = list(few)
    others = [each for each in grid if each not in taken]
    return [*taken, *(pytest.param(*_values(each), marks=pytest.mark.exhaustive) for each in others)]


def _values(each: Any) -> tuple[Any, ...]:
    return each if isinstance(each, tuple) else (each,)
