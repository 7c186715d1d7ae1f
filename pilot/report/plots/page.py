"""Pages that a figure is drawn for: a screen, at the size that its content needs, or a column or the text of a paper.

On paper a figure has the width of its page, so that nothing is scaled and the font size is 7 to 8 points. Its title
is not drawn, because the caption in the paper replaces it.
"""

from dataclasses import dataclass
from typing import Any

SMALLEST, LARGEST = 7.0, 8.0
"""Font sizes on paper in points."""


@dataclass(frozen=True)
class Page:
    """A page for figures; `width` in inches, None if it depends on the content."""

    name: str
    width: float | None = None

    @property
    def paper(self) -> bool:
        """True for a page of a paper, which has a fixed width."""
        return self.width is not None

    @property
    def narrow(self) -> bool:
        """True if three panels with numbers do not fit side by side."""
        return self.width is not None and self.width < _NARROW

    def inches(self, screen: tuple[float, float], paper: float) -> tuple[float, float]:
        """Return width and height of a figure: `screen`, or on paper this page's width and the height `paper`."""
        return screen if self.width is None else (self.width, paper)

    def points(self, screen: float) -> float:
        """Return the font size in points: `screen`, on paper limited to `SMALLEST` and `LARGEST`."""
        return min(LARGEST, max(SMALLEST, screen)) if self.paper else screen

    @property
    def rc(self) -> dict[str, Any]:
        """Matplotlib settings that differ from those for a screen."""
        sizes = ("font.size", "axes.labelsize", "legend.fontsize", "xtick.labelsize", "ytick.labelsize")
        if not self.paper:
            return {}
        thin = ("axes.linewidth", "xtick.major.width", "ytick.major.width")
        return {
            **dict.fromkeys(sizes, SMALLEST),
            **{"axes.titlesize": LARGEST, "figure.titlesize": LARGEST, "legend.columnspacing": 1.2},
            **dict.fromkeys(thin, 0.5),
            **{"legend.labelspacing": 0.3, "axes.titlepad": 4.0, "axes.labelpad": 3.0},
            **{"xtick.major.size": 2.5, "ytick.major.size": 2.5, "hatch.linewidth": 0.4},
        }


_NARROW = 5.0
SCREEN = Page("screen")
COLUMN = Page("column", 3.33)
TEXT = Page("text", 7.0)
PAPER = (COLUMN, TEXT)
