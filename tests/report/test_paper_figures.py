"""Figures for paper: sizes, letters, nothing cut or overlapping, with few methods and with many."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from pilot.report.figures import FIGURES, write_figures
from pilot.report.load import load_runs
from pilot.report.plots.page import LARGEST, PAPER, SMALLEST, Page
from pilot.report.plots.style import Source, style_context
from pilot.report.tables import write_tables

from .synthetic import SKILL, ZOO, build_scenario

CORE = ("pilot", "fedavg", "fedprox", "fedmoe", "local", "central")
HIGHEST = 9.3
"""Inches of text on a US letter or A4 page of the usual conferences."""


@pytest.fixture(scope="session")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake scenario with the six core methods."""
    folder = build_scenario(tmp_path_factory.mktemp("six"), CORE)
    write_tables(folder)
    return folder


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake scenario with 32 methods."""
    folder = build_scenario(tmp_path_factory.mktemp("many"), (*SKILL, *ZOO), seeds=(0, 1))
    write_tables(folder)
    return folder


@pytest.fixture(params=["six", "many"])
def source(request: pytest.FixtureRequest) -> Source:
    """What figures read: six methods, or 32."""
    folder: Path = request.getfixturevalue(request.param)
    return Source(folder, tuple(load_runs([folder])))


Drawn = list[tuple[str, float, Bbox]]
"""Text, size in points, place in pixels."""


def drawn(source: Source, name: str, page: Page, monkeypatch: pytest.MonkeyPatch) -> tuple[Figure, Drawn]:
    """A figure and every text on it (ticks beyond an axis have labels, but are not drawn)."""
    found: Drawn = []

    def record(self: Text, renderer: RendererBase) -> None:
        if self.get_visible() and self.get_text().strip():
            found.append((self.get_text(), float(self.get_fontsize()), self.get_window_extent(renderer)))

    monkeypatch.setattr(Text, "draw", record)
    with style_context(page):
        figure = FIGURES[name](source, page)
        FigureCanvasAgg(figure).draw()
    return figure, found


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("page", PAPER, ids=lambda page: page.name)
def test_letters_are_legible_and_nothing_is_cut_or_covered(
    source: Source, name: str, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure, found = drawn(source, name, page, monkeypatch)
    assert figure.get_figwidth() == page.width and figure.get_figheight() < HIGHEST
    assert len(found) > 5
    assert {text: size for text, size, _ in found if not SMALLEST <= size <= LARGEST} == {}
    width, height = figure.get_size_inches() * figure.dpi
    cut = [text for text, _, box in found if min(box.x0, box.y0) < -1 or box.x1 > width + 1 or box.y1 > height + 1]
    assert cut == []
    inner = [(text, Bbox.from_extents(b.x0 + 1, b.y0 + 1, b.x1 - 1, b.y1 - 1)) for text, _, b in found]
    assert [(a, b) for (a, one), (b, other) in combinations(inner, 2) if one.overlaps(other)] == []
