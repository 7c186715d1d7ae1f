"""Kendall's tau of the methods' order between settings, and what becomes of marks, against values by hand."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from pilot.report.numbers.agreement import (
    DOWN,
    EVERYWHERE,
    NONE,
    NOWHERE,
    REVERSED,
    SOMEWHERE,
    UP,
    Conclusion,
    kendall_tau,
)


def test_tau_by_hand() -> None:
    """Of three pairs two are ordered alike: (2 - 1) / 3. With a tie in one: 2 / sqrt(2 * 3)."""
    order = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.1, 0.1, 0.3], [1.0, 1.0, 1.0]])
    other = np.array([[0.5, 0.6, 0.9], [0.6, 0.5, 0.9], [0.9, 0.6, 0.5], [0.5, 0.6, 0.9], [0.5, 0.6, 0.9]])
    found = kendall_tau(order, other)
    assert found[:4] == pytest.approx([1, 1 / 3, -1, 2 / 6**0.5]) and np.isnan(found[4])


def test_tau_is_scipys() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, (2, 40, 9)).astype(float)
    expected = [kendalltau(one, other).statistic for one, other in zip(first, second, strict=True)]
    assert kendall_tau(first, second) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("marks", "verdict"),
    [
        ((UP, UP, UP), EVERYWHERE), ((DOWN, DOWN), EVERYWHERE), ((UP, NONE), SOMEWHERE), ((NONE, NONE), NOWHERE),
        ((UP, NONE, DOWN), REVERSED),
    ],
)  # fmt: skip
def test_verdicts(marks: tuple[str, ...], verdict: str) -> None:
    assert Conclusion("pilot", "a", marks).verdict == verdict
