"""What every figure for paper has to be: as wide as its page, with letters that can be read, none cut or covered."""

from collections.abc import Callable
from itertools import combinations

import pytest
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from pilot.report.plots.page import LARGEST, SMALLEST, Page
from pilot.report.plots.style import style_context

HIGHEST = 9.3
"""Inches of text on a US letter or A4 page of the usual conferences."""
Drawn = list[tuple[str, float, Bbox, bool]]
"""Text, size in points, place in pixels, whether it is slanted."""


def drawn(draw: Callable[[Page], Figure], page: Page, monkeypatch: pytest.MonkeyPatch) -> tuple[Figure, Drawn]:
    """A figure and every text on it (ticks beyond an axis have labels, but are not drawn)."""
    found: Drawn = []

    def record(self: Text, renderer: RendererBase) -> None:
        if self.get_visible() and self.get_text().strip():
            place, slanted = self.get_window_extent(renderer), self.get_rotation() % 90 != 0
            found.append((self.get_text(), float(self.get_fontsize()), place, slanted))

    with monkeypatch.context() as patch, style_context(page):
        patch.setattr(Text, "draw", record)
        figure = draw(page)
        FigureCanvasAgg(figure).draw()
    return figure, found


def assert_legible(draw: Callable[[Page], Figure], page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size of the figure and of its letters; every text within the figure, and off all others.

    Slanted texts are left out of the last: their boxes overlap where they do not.
    """
    figure, found = drawn(draw, page, monkeypatch)
    assert figure.get_figwidth() == page.width and figure.get_figheight() < HIGHEST
    assert len(found) > 5
    assert {text: size for text, size, *_ in found if not SMALLEST <= size <= LARGEST} == {}
    width, height = figure.get_size_inches() * figure.dpi
    cut = [text for text, _, box, _ in found if min(box.x0, box.y0) < -1 or box.x1 > width + 1 or box.y1 > height + 1]
    assert cut == []
    # A gap of two pixels (a letter is seven wide) beside a word; lines of one text may touch.
    upright = [(text, box) for text, _, box, slanted in found if not slanted]
    places = [(text, Bbox.from_extents(b.x0 - 1, b.y0 + 1, b.x1 + 1, b.y1 - 1)) for text, b in upright]
    assert [(a, b) for (a, one), (b, other) in combinations(places, 2) if one.overlaps(other)] == []
