"""Visual grounding: boxes in text, intersection over union, accuracy at 0.5.

Answers are never repaired silently. `parse_box` returns None for an answer with

- fewer or more than four numbers (outside a bracketed group of exactly four, which takes precedence over other
  numbers),
- NaN, infinity, a percent sign after a number or its bracket, or a unit attached to a number ("0.4px"),
- a coordinate outside the frame: 0..1, or 0..1000 for `thousandths`, 0..448 for `pixels_448`; numbers of another frame,
  such as percent, are NOT rescaled,
- reversed corners (x2 < x1 or y2 < y1),
- two or more coordinates with names (`x`, `width`, `left`, `ymin`, `top-left`, ...; see `box_names`) that do not make a
  box together: names are never ignored in favour of positions.

A box without area is valid; its overlap with any box is 0.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pilot.config.model import FRAMES, UNITS
from pilot.evaluation.box_names import Role, box_from_roles, roles_beside, roles_of_numbers
from pilot.evaluation.result import MetricResult, check_ids, mean_result

IOU_THRESHOLD = 0.5
# Intersection over union of two-decimal boxes is a ratio of integers below 1e8; an exact 0.5 is computed to within
# a few ulp, and no other ratio is within 1e-9 of 0.5.
_ROUNDING = 1e-9

# Typographic minus signs, which would otherwise be taken for separators: minus, en dash, full-width hyphen.
_MINUS = str.maketrans("\u2212\u2013\uff0d", "---")
# The group (?>...) is atomic: a number matches as a whole or not at all, so that no last digit is cut off.
_VALUE = r"(?>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?(?i:nan|inf(?:inity)?))"
_NUMBER = rf"(?<![\w.]){_VALUE}(?!\w|[\s\])}}>]*%)"
_NUMBERS = re.compile(_NUMBER)
_DIGITS = re.compile(r"[0-9]+|(?i:\bnan\b|\binf)")
_GROUP = re.compile(r"[\[({<]([^\[\](){}<>]*)[\])}>](?!\s*%)")
_NAME = re.compile(r"\b[A-Za-z_]+[0-9]*\b(?=[\"']?\s*[=:])|\(\s*[xX][0-9]?\s*,\s*[yY][0-9]?\s*\)")
_FOUR = re.compile(rf"\s*{_NUMBER}(?:[,;\s]+{_NUMBER}){{3}}[,;\s]*")


class Box(NamedTuple):
    """Upper left and lower right corners, as fractions (0..1) of the frame's width and height."""

    x1: float
    y1: float
    x2: float
    y2: float


def parse_box(text: str, frame: str = "original") -> Box | None:
    """Return the box in a model's answer, or None if it has no valid one (see the module's docstring).

    The box is the first group in brackets, parentheses or braces that holds exactly four numbers; without such a
    group, the four numbers of the text, separated by anything ("x1=0.1 y1=0.2 ...", "(0.1, 0.2), (0.3, 0.4)"). Named
    numbers are assigned by name: see `box_names`.
    """
    text = text.translate(_MINUS)
    for group in _GROUP.finditer(text):
        if _FOUR.fullmatch(group[1]):
            roles, unclear = roles_beside(text[: group.start()], text[group.end() :], _NUMBERS)
            return None if unclear else _named_box(roles, _NUMBERS.findall(group[1]), UNITS[frame])
    roles, unclear = roles_of_numbers(text, _NUMBERS)
    return None if unclear or not _all_numbers_whole(text) else _named_box(roles, _NUMBERS.findall(text), UNITS[frame])


def _all_numbers_whole(text: str) -> bool:
    """Check that every digit is part of a number or of a name before "=" or ":" such as `x1` (no "0.4px", "0.1.2")."""
    return _DIGITS.search(_NAME.sub(" ", _NUMBERS.sub(" ", text))) is None


def _named_box(roles: Sequence[Role], numbers: Sequence[str], unit: int) -> Box | None:
    """Make a box from four numbers, assigned by name if they have names."""
    return _box(box_from_roles(roles, numbers, unit) if roles and len(numbers) == 4 else numbers, unit)


def _box(numbers: Sequence[str], unit: int = 1) -> Box | None:
    """Make a box in 0..1 with ordered corners from four numbers, or return None (also for NaN)."""
    if len(numbers) != 4:
        return None
    box = Box(*(float(number) / unit for number in numbers))
    valid = 0 <= box.x1 <= box.x2 <= 1 and 0 <= box.y1 <= box.y2 <= 1
    return box if valid else None


def iou(a: Box, b: Box) -> float:
    """Compute the intersection over union, in 0..1; 0.0 if the boxes do not overlap or one has no area."""
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    union = (a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1) - intersection
    return min(1.0, intersection / union) if union > 0 else 0.0


def is_hit(overlap: float) -> bool:
    """Check whether an intersection over union is a hit: at least 0.5, up to rounding."""
    return overlap >= IOU_THRESHOLD - _ROUNDING


def score_example(prediction: str, reference: Sequence[float], frame: str = "original") -> dict[str, float]:
    """Compute hit (1.0 or 0.0), intersection over union and parse failure (1.0 or 0.0) of one answer.

    Raises:
        ValueError: an unknown frame, or a reference that is not an ordered box in 0..1.
    """
    if frame not in FRAMES:
        raise ValueError(f"frame is {frame!r}, expected one of {', '.join(FRAMES)}")
    target = _box([repr(float(value)) for value in reference])
    if target is None:
        raise ValueError(f"reference box {list(reference)} is not x1 <= x2, y1 <= y2 within 0..1")
    box = parse_box(prediction, frame)
    overlap = 0.0 if box is None else iou(box, target)
    return {
        f"acc@0.5[{frame}]": float(is_hit(overlap)),
        f"mean_iou[{frame}]": overlap,
        "parse_failure_rate": float(box is None),
    }


def score(
    predictions: Mapping[str, str], boxes: Mapping[str, Sequence[float]], frame: str = "original"
) -> dict[str, MetricResult]:
    """Compute Acc@IoU>=0.5, mean IoU and parse failure rate of a set of answers by id.

    An answer without a valid box is a miss with IoU 0 and counts in `parse_failure_rate`. Predictions and
    reference boxes are in the same frame, which is part of the metric's name.

    Raises:
        ValueError: no examples, ids that differ, an unknown frame, or an invalid reference box.
    """
    check_ids(predictions, boxes)
    values: dict[str, dict[str, float]] = {}
    for example_id in sorted(boxes):
        for metric, value in score_example(predictions[example_id], boxes[example_id], frame).items():
            values.setdefault(metric, {})[example_id] = value
    return {metric: mean_result(per_example) for metric, per_example in values.items()}
