"""Conversion of annotated boxes to fractions of the original image, with checks and recorded clipping."""

import math
from dataclasses import dataclass

from pilot.data.frames import from_frame
from pilot.data.record import RelativeBox
from pilot.data.rows import RawBox

TOLERANCE = 0.05
"""Largest excess of a box over the image's edge, as a share of the image's side, that is still clipped."""

_ROUNDING = 1e-6
"""A smaller excess is a floating-point error, not an annotation error."""


@dataclass(frozen=True)
class CheckedBox:
    """A box inside its image.

    Attributes:
        box: x1, y1, x2, y2 as fractions (0..1) of the original image's sides.
        clipped: largest excess over any edge, as a share of the image's side; 0.0 if nothing was clipped.
    """

    box: RelativeBox
    clipped: float


@dataclass(frozen=True)
class BadBox:
    """Reason why a box cannot be used."""

    reason: str


def check_box(raw: RawBox, width: int, height: int) -> CheckedBox | BadBox:
    """Convert a box of a `width` x `height` image to fractions, or return why it cannot be used.

    A box is refused if it is not finite, has no area (including reversed corners), is outside the image, or exceeds it
    by more than `TOLERANCE`: the annotation was then probably made for another image or is not in the stated form.
    """
    if len(raw.values) != 4:
        return BadBox(f"expected four numbers, got {len(raw.values)}")
    try:
        values = [float(value) for value in raw.values]
    except (TypeError, ValueError, OverflowError):
        return BadBox("expected four numbers")
    if not all(math.isfinite(value) for value in values):
        return BadBox("the numbers are not finite")
    x1, y1, x2, y2 = _fractions(values, raw.form, width, height)
    if not all(math.isfinite(value) for value in (x1, y1, x2, y2)):
        return BadBox("the numbers are not finite")
    if x2 <= x1 or y2 <= y1:
        return BadBox("the box has no area, or its corners are reversed")
    if x2 <= 0 or y2 <= 0 or x1 >= 1 or y1 >= 1:
        return BadBox("the box is outside the image")
    beyond = max(0.0, -x1, -y1, x2 - 1, y2 - 1)
    if beyond > TOLERANCE:
        return BadBox(f"the box extends beyond the image by more than {TOLERANCE:.0%} of its side")
    inside = (max(0.0, x1), max(0.0, y1), min(1.0, x2), min(1.0, y2))
    return CheckedBox(inside, beyond if beyond > _ROUNDING else 0.0)


def _fractions(values: list[float], form: str, width: int, height: int) -> RelativeBox:
    """Return the corners as fractions of the image's sides, unchecked."""
    x1, y1, x2, y2 = values
    if form.endswith("xywh"):
        x2, y2 = x1 + x2, y1 + y2
    if form.startswith("pixels"):
        return x1 / width, y1 / height, x2 / width, y2 / height
    if form == "padded_square_xyxy":
        return from_frame((x1, y1, x2, y2), "padded_square", (width, height))
    return x1, y1, x2, y2
