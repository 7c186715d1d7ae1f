"""Boxes in text, intersection over union, and the traps around them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.evaluation.grounding import Box, iou, parse_box, score, score_example

UNIT = Box(0.1, 0.2, 0.3, 0.45)


@pytest.mark.parametrize(
    "text",
    [
        "[0.10, 0.20, 0.30, 0.45]",
        "[0.1,0.2,0.3,0.45]",
        "(0.10, 0.20, 0.30, 0.45)",
        "{0.10; 0.20; 0.30; 0.45}",
        "0.10 0.20 0.30 0.45",
        "0.10, 0.20, 0.30, 0.45.",
        "[.1, .2, .3, .45]",
        "[1e-1, 2e-1, 3e-1, 4.5e-1]",
        "[[0.10, 0.20, 0.30, 0.45]]",
        "(0.10, 0.20), (0.30, 0.45)",
        "[(0.10, 0.20), (0.30, 0.45)]",
        "x1=0.10, y1=0.20, x2=0.30, y2=0.45",
        "The 2 dogs are at [0.10, 0.20, 0.30, 0.45].",
        "[0.10, 0.20, 0.30, 0.45] and [0.5, 0.5, 0.6, 0.6]",
        "[0.10, 0.20, 0.30, 0.45",  # the closing bracket was cut off, the last digit was not
        " [0.10,\n0.20,\t0.30, 0.45]</s>",
    ],
)
def test_parse(text: str) -> None:
    assert parse_box(text) == UNIT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no box here",
        "[0.1, 0.2, 0.3]",
        "[0.1, 0.2, 0.3, 0.4, 0.5]",
        "0.1 0.2 0.3 0.4 0.5",
        "2 dogs at 0.1, 0.2, 0.3, 0.4",
        "[nan, 0.1, 0.2, 0.3]",
        "nan 0.1 0.2 0.3 0.4",
        "[0.1, 0.2, inf, 0.4]",
        "[-0.1, 0.2, 0.3, 0.4]",
        "[−0.1, 0.2, 0.3, 0.4]",  # a typographic minus
        "[0.3, 0.2, 0.1, 0.4]",  # x2 < x1
        "[0.1, 0.4, 0.3, 0.2]",  # y2 < y1
        "[10, 20, 30, 40]",  # percent: not rescaled
        "[0.1, 0.2, 0.3, 1.01]",
        "[102, 204, 306, 408]",  # 0..999: not rescaled
        "[0.1%, 0.2%, 0.3%, 0.4%]",
        "[0.1px, 0.2px, 0.3px, 0.4px]",
        "[0.1.2, 0.2, 0.3, 0.4]",
        "0,1, 0,2, 0,3, 0,4",  # decimal commas
        "[0.10, 0.20, 0.30, 0.",  # cut off within a number: y2 would be 0
    ],
)
def test_no_box(text: str) -> None:
    assert parse_box(text) is None


@pytest.mark.parametrize("last", [f"0.{digits:02d}" for digits in range(46, 100)])
def test_the_last_digit_is_never_cut(last: str) -> None:
    for template in ("[0.10, 0.20, 0.30, {}]", "0.10 0.20 0.30 {}", "[0.10, 0.20, 0.30, {}"):
        assert parse_box(template.format(last)) == (0.1, 0.2, 0.3, float(last))


def test_border_boxes_parse() -> None:
    assert parse_box("[0, 0, 1, 1]") == (0, 0, 1, 1)
    assert parse_box("[0.5, 0.5, 0.5, 0.5]") == (0.5, 0.5, 0.5, 0.5)


def test_iou_values() -> None:
    assert iou(Box(0, 0, 1, 1), Box(0, 0, 1, 0.5)) == 0.5
    assert iou(Box(0, 0, 0.5, 0.5), Box(0.25, 0.25, 0.75, 0.75)) == pytest.approx(1 / 7)
    assert iou(Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)) == 0.0  # they touch
    assert iou(UNIT, UNIT) == 1.0
    assert iou(Box(0.5, 0.5, 0.5, 0.5), Box(0.5, 0.5, 0.5, 0.5)) == 0.0


def test_exactly_one_half_is_a_hit() -> None:
    hit = score_example("[0.00, 0.00, 1.00, 0.50]", [0, 0, 1, 1])
    assert hit == {"acc@0.5[original]": 1.0, "mean_iou[original]": 0.5, "parse_failure_rate": 0.0}
    assert score_example("[0.00, 0.00, 1.00, 0.49]", [0, 0, 1, 1])["acc@0.5[original]"] == 0.0


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


@given(boxes, boxes)
def test_iou_is_symmetric_and_in_range(a: Box, b: Box) -> None:
    assert iou(a, b) == iou(b, a)
    assert 0.0 <= iou(a, b) <= 1.0


@given(boxes)
def test_parse_reads_back_what_is_printed(box: Box) -> None:
    assert parse_box(f"[{box.x1!r}, {box.y1!r}, {box.x2!r}, {box.y2!r}]") == box


@given(st.lists(st.tuples(boxes, boxes), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_order_of_examples_does_not_matter(pairs: list[tuple[Box, Box]], rng: random.Random) -> None:
    order = list(range(len(pairs)))
    rng.shuffle(order)
    results = [
        score({str(i): str(list(pairs[i][0])) for i in indices}, {str(i): pairs[i][1] for i in indices})
        for indices in (range(len(pairs)), order)
    ]
    assert results[0] == results[1]


@given(st.text())
def test_any_text_is_handled(text: str) -> None:
    box = parse_box(text)
    assert box is None or (0 <= box.x1 <= box.x2 <= 1 and 0 <= box.y1 <= box.y2 <= 1)
