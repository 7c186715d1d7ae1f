"""English phrases for scenes, and their boxes as text."""

from collections.abc import Sequence

from pilot.data.prompts import hundredths_text
from pilot.data.scenes.scene import SIZE, PixelBox

FAMILY_PLURALS = {"animal": "animals", "food": "foods", "vehicle": "vehicles", "tool": "tools"}


def article(noun: str) -> str:
    """Add the indefinite article to a noun."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def enumeration(phrases: Sequence[str]) -> str:
    """Join phrases as `x`, `x and y` or `x, y and z`."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def relative_box(box: PixelBox) -> tuple[float, float, float, float]:
    """Convert a box in pixels to exact fractions (0..1) of the image's side."""
    x1, y1, x2, y2 = (edge / SIZE for edge in box)
    return x1, y1, x2, y2


def box_text(box: PixelBox) -> str:
    """Write a box in pixels of a scene as a grounding answer; see `hundredths_text`."""
    return hundredths_text(100 * edge / SIZE for edge in box)
