"""Boxes: every form by hand, clipping with its record, refusals, and the answer's text."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.data.boxes import TOLERANCE, BadBox, CheckedBox, check_box
from pilot.data.prompts import box_answer
from pilot.data.record import InstructionRecord, check_records
from pilot.data.rows import RawBox
from pilot.data.scenes.scene import SIZE
from pilot.data.scenes.wording import box_text

FORMS = ("pixels_xyxy", "pixels_xywh", "fractions_xyxy", "fractions_xywh", "padded_square_xyxy")


def checked(values: tuple[float, ...], form: str, width: int, height: int) -> CheckedBox:
    """The checked box, which must be one."""
    found = check_box(RawBox(values, form), width, height)  # type: ignore[arg-type]
    assert isinstance(found, CheckedBox), found
    return found


@pytest.mark.parametrize(
    ("values", "form", "size", "box"),
    [
        ((64, 48, 320, 240), "pixels_xyxy", (640, 480), (0.1, 0.1, 0.5, 0.5)),
        ((64, 48, 256, 192), "pixels_xywh", (640, 480), (0.1, 0.1, 0.5, 0.5)),
        ((0.1, 0.2, 0.3, 0.4), "fractions_xyxy", (640, 480), (0.1, 0.2, 0.3, 0.4)),
        ((0.125, 0.25, 0.5, 0.25), "fractions_xywh", (640, 480), (0.125, 0.25, 0.625, 0.5)),
        # 400x200 in a square of 400: 100 pixels above. y = 0.25 is the image's top edge, 0.75 its bottom edge.
        ((0.5, 0.25, 1.0, 0.75), "padded_square_xyxy", (400, 200), (0.5, 0.0, 1.0, 1.0)),
        ((0.1, 0.375, 0.2, 0.5), "padded_square_xyxy", (400, 200), (0.1, 0.25, 0.2, 0.5)),
        # Upright: 100 pixels at the left of 200x400; x = 0.5 is the middle.
        ((0.25, 0.1, 0.5, 0.2), "padded_square_xyxy", (200, 400), (0.0, 0.1, 0.5, 0.2)),
        # 5x4: (5 - 4) // 2 = 0 pixels above, as LLaVA-1.5 rounds: y = 0.4 is pixel 2 of 4.
        ((0.2, 0.4, 0.6, 0.8), "padded_square_xyxy", (5, 4), (0.2, 0.5, 0.6, 1.0)),
    ],
)
def test_forms(values: tuple[float, ...], form: str, size: tuple[int, int], box: tuple[float, ...]) -> None:
    found = checked(values, form, *size)
    assert found.box == pytest.approx(box, abs=1e-12) and found.clipped == 0


def test_clipping_is_recorded() -> None:
    found = checked((-4, 10, 50, 102), "pixels_xyxy", 100, 100)
    assert found.box == (0.0, 0.1, 0.5, 1.0)
    assert found.clipped == pytest.approx(0.04)  # 4 pixels at the left are worse than 2 at the bottom
    assert checked((10, 10, 95, 50), "pixels_xyxy", 100, 100).clipped == 0
    assert checked((0.7, 0.1, 0.3 + 1e-12, 0.2), "fractions_xywh", 9, 9).clipped == 0  # 1.000000000001


@pytest.mark.parametrize(
    ("values", "form", "why"),
    [
        ((10, 10, 10, 50), "pixels_xyxy", "no area"),
        ((50, 10, 10, 50), "pixels_xyxy", "reversed"),
        ((10, 10, 0, 5), "pixels_xywh", "no area"),
        ((10, 10, -5, 5), "pixels_xywh", "no area"),
        ((math.nan, 0, 1, 1), "fractions_xyxy", "not finite"),
        ((0, 0, math.inf, 1), "fractions_xyxy", "not finite"),
        ((1e308, 0, 1e308, 1), "pixels_xywh", "not finite"),
        ((100, 0, 120, 50), "pixels_xyxy", "outside"),
        ((-30, 0, 0, 50), "pixels_xyxy", "outside"),
        ((50, 50, 106, 90), "pixels_xyxy", "more than 5%"),
        ((50, 50, 150, 150), "fractions_xyxy", "outside"),
        ((0, 0, 1), "fractions_xyxy", "got 3"),
        (("a", 0, 1, 1), "fractions_xyxy", "four numbers"),
        ((10**400, 0, 1, 1), "fractions_xyxy", "four numbers"),
    ],
)
def test_refusals(values: tuple[float, ...], form: str, why: str) -> None:
    found = check_box(RawBox(values, form), 100, 100)  # type: ignore[arg-type]
    assert isinstance(found, BadBox) and why in found.reason


@given(
    st.tuples(*[st.floats() | st.integers(-(10**30), 10**30)] * 4),
    st.sampled_from(FORMS),
    st.integers(1, 10**5),
    st.integers(1, 10**5),
)
def test_any_numbers_make_a_valid_box_or_a_reason(
    values: tuple[float, float, float, float], form: str, width: int, height: int
) -> None:
    found = check_box(RawBox(values, form), width, height)  # type: ignore[arg-type]
    if isinstance(found, BadBox):
        assert found.reason
        return
    x1, y1, x2, y2 = found.box
    assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 and 0 <= found.clipped <= TOLERANCE
    text = box_answer(found.box)
    record = InstructionRecord("a", "ground", "s", b"\x89PNG", "Where?", text, (text,), {}, "train", found.box)
    check_records(Path("x"), [record])


@given(st.integers(0, 900), st.integers(0, 900), st.integers(1, 100), st.integers(1, 100), st.sampled_from(FORMS))
def test_every_form_of_one_box_is_the_same_box(left: int, top: int, width: int, height: int, form: str) -> None:
    size, right, bottom = (1000, 1000), left + width, top + height
    edges = (left, top, right, bottom)
    stated = {
        "pixels_xyxy": edges,
        "pixels_xywh": (left, top, width, height),
        "fractions_xyxy": tuple(edge / 1000 for edge in edges),
        "fractions_xywh": (left / 1000, top / 1000, width / 1000, height / 1000),
        "padded_square_xyxy": tuple(edge / 1000 for edge in edges),
    }[form]
    assert checked(stated, form, *size).box == pytest.approx([edge / 1000 for edge in edges])


def test_text_of_boxes() -> None:
    assert box_answer((0.0, 0.126, 0.5, 1.0)) == "[0.00, 0.13, 0.50, 0.99]"
    assert box_text((0, 10, 40, SIZE)) == "[0.00, 0.12, 0.50, 0.99]"  # 12.5 hundredths round to even
