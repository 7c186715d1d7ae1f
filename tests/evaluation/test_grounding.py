"""Boxes in text, intersection over union, and the traps around them. Literal values are in tests/conformance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.evaluation.grounding import Box, parse_box, score, score_example


@pytest.mark.parametrize("last", [f"0.{digits:02d}" for digits in range(46, 100)])
def test_the_last_digit_is_never_cut(last: str) -> None:
    for template in ("[0.10, 0.20, 0.30, {}]", "0.10 0.20 0.30 {}", "[0.10, 0.20, 0.30, {}"):
        assert parse_box(template.format(last)) == (0.1, 0.2, 0.3, float(last))


@given(*[st.integers(0, 90)] * 2, *[st.integers(1, 5)] * 2)
def test_exactly_one_half_is_a_hit_wherever_it_is(x: int, y: int, w: int, h: int) -> None:
    # One box twice as wide as the other, in hundredths: the ratio is 1/2, whatever rounding makes of it.
    text = f"[{x / 100:.2f}, {y / 100:.2f}, {(x + w) / 100:.2f}, {(y + h) / 100:.2f}]"
    target = [x / 100, y / 100, (x + 2 * w) / 100, (y + h) / 100]
    assert score_example(text, target)["acc@0.5[original]"] == 1.0


def test_score_counts_unparsed_as_misses() -> None:
    boxes = {"a": [0.0, 0.0, 1.0, 1.0], "b": [0.0, 0.0, 0.5, 0.5], "c": [0.0, 0.0, 1.0, 1.0]}
    answers = {"a": "[0, 0, 1, 0.5]", "b": "on the left", "c": "[0, 0, 0.5, 0.5]"}
    results = score(answers, boxes)
    assert results["acc@0.5[original]"].value == pytest.approx(1 / 3)
    assert results["mean_iou[original]"].value == pytest.approx((0.5 + 0 + 0.25) / 3)
    assert results["parse_failure_rate"].value == pytest.approx(1 / 3)
    assert results["parse_failure_rate"].per_example == {"a": 0.0, "b": 1.0, "c": 0.0}


def test_frame_is_part_of_the_name() -> None:
    names = set(score({"a": ""}, {"a": [0, 0, 1, 1]}, frame="padded_square"))
    assert names == {"acc@0.5[padded_square]", "mean_iou[padded_square]", "parse_failure_rate"}
    with pytest.raises(ValueError, match="frame is 'cropped'"):
        score({"a": ""}, {"a": [0, 0, 1, 1]}, frame="cropped")


def test_score_errors() -> None:
    with pytest.raises(ValueError, match="no examples"):
        score({}, {})
    with pytest.raises(ValueError, match="no prediction, first: 'a'"):
        score({}, {"a": [0, 0, 1, 1]})
    with pytest.raises(ValueError, match="reference box"):
        score({"a": ""}, {"a": [0, 0, 100, 100]})


fractions = st.floats(0, 1, allow_nan=False)
boxes = st.tuples(fractions, fractions, fractions, fractions).map(
    lambda v: Box(min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))
)


@given(boxes)
def test_parse_reads_back_what_is_printed(box: Box) -> None:
    assert parse_box(f"[{box.x1!r}, {box.y1!r}, {box.x2!r}, {box.y2!r}]") == box


def test_named_coordinates_are_in_the_frames_units() -> None:
    """Names in any order, also where coordinates are thousandths or pixels of 448."""
    named = '{{"y1": {}, "x1": {}, "y2": {}, "x2": {}}}'
    assert parse_box(named.format(200, 100, 400, 300), "thousandths") == (0.1, 0.2, 0.3, 0.4)
    assert parse_box(named.format(112, 56, 448, 224), "pixels_448") == (0.125, 0.25, 0.5, 1.0)
    assert parse_box("left=100 top=200 width=200 height=200", "thousandths") == (0.1, 0.2, 0.3, 0.4)
    assert parse_box(named.format(200, 100, 400, 1001), "thousandths") is None
    assert parse_box(named.format(200, 100, 400, 300)) is None


@given(st.text())
def test_any_text_is_handled(text: str) -> None:
    box = parse_box(text)
    assert box is None or (0 <= box.x1 <= box.x2 <= 1 and 0 <= box.y1 <= box.y2 <= 1)
