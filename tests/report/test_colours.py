"""Methods stay apart for readers with a colour vision deficiency.

Simulated with the matrices of Machado, Oliveira & Fernandes (2009, severity 1.0, on linear RGB); distances are
Euclidean in CIE Lab (D65), where about 2.3 is the smallest difference that is seen.
"""

from itertools import combinations

import numpy as np
import pytest

from pilot.methods.catalogue import METHODS
from pilot.report.html import look
from pilot.report.numbers.order import REFERENCES
from pilot.report.plots.style import _SHAPES, MARKERS, method_style

CORE = ("pilot", "fedavg", "fedprox", "fedmoe", "local", "central")
APART, STILL_APART = 15.0, 10.0
MATRICES = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(colour: str, deficiency: str = "none") -> np.ndarray:
    """CIE Lab of an sRGB colour (`#RRGGBB`) as it is seen."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    x, y, z = XYZ @ np.clip(MATRICES[deficiency] @ linear, 0, 1) / WHITE
    x, y, z = (v ** (1 / 3) if v > (6 / 29) ** 3 else v / (3 * (6 / 29) ** 2) + 4 / 29 for v in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: str, other: str, deficiency: str) -> float:
    """How far apart two colours are seen."""
    return float(np.linalg.norm(lab(one, deficiency) - lab(other, deficiency)))


def test_lab_of_known_colours() -> None:
    assert lab("#FFFFFF") == pytest.approx([100, 0, 0], abs=0.02) and lab("#000000") == pytest.approx([0, 0, 0])
    assert lab("#FF0000") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    # Red and green of about the same lightness, far apart for most, are close for a deuteranope.
    assert distance("#B04040", "#6B7000", "none") > 55 > 20 > distance("#B04040", "#6B7000", "deuteranopia")


@pytest.mark.parametrize("deficiency", MATRICES)
def test_core_methods_differ_in_colour_and_in_marker(deficiency: str) -> None:
    close = {
        (one, other): distance(method_style(one).colour, method_style(other).colour, deficiency)
        for one, other in combinations(CORE, 2)
    }
    assert {pair: round(value, 1) for pair, value in close.items() if value < APART} == {}
    assert len({method_style(name).marker for name in CORE}) == len(CORE)


@pytest.mark.parametrize("deficiency", MATRICES)
def test_any_two_methods_that_are_drawn_as_points_differ_in_colour_or_marker(deficiency: str) -> None:
    """All of them but the references, which are lines or have their name beside them."""
    points = sorted(set(METHODS) - set(REFERENCES))
    assert len(points) > 30
    styles = {name: method_style(name) for name in points}
    alike = [
        (one, other)
        for one, other in combinations(points, 2)
        if styles[one].marker == styles[other].marker
        and distance(styles[one].colour, styles[other].colour, deficiency) < STILL_APART
    ]
    assert alike == []


def test_every_marker_of_figures_has_a_symbol_on_the_page() -> None:
    for marker in (*_SHAPES, *MARKERS, *(method_style(method).marker for method in METHODS)):
        assert marker in look._SHAPES, marker
    assert len({(look.shape(method), method_style(method).colour) for method in METHODS}) == len(METHODS)
