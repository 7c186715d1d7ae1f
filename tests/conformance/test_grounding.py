"""Boxes against `fixtures/grounding.json`."""

from fractions import Fraction

import pytest

from pilot.evaluation.grounding import Box, iou, parse_box, score_example
from pilot.evaluation.tasks import task_functions

from . import formulas
from .fixture_files import Entry, load

FIXTURES = load("grounding")


@pytest.mark.parametrize("entry", FIXTURES["boxes"], ids=lambda entry: ascii(entry["text"]))
def test_parse(entry: Entry) -> None:
    expected = None if entry["box"] is None else Box(*entry["box"])
    assert parse_box(entry["text"]) == expected, entry["why"]


@pytest.mark.parametrize("entry", FIXTURES["iou"], ids=lambda entry: entry["why"])
def test_intersection_over_union(entry: Entry) -> None:
    a, b = Box(*entry["a"]), Box(*entry["b"])
    expected = Fraction(entry["iou"])
    in_hundredths = [[round(100 * value) for value in box] for box in (a, b)]
    assert formulas.iou(*in_hundredths) == expected
    assert iou(a, b) == iou(b, a) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("entry", FIXTURES["answers"], ids=lambda entry: entry["why"])
def test_answer(entry: Entry) -> None:
    expected = {
        "acc@0.5[original]": entry["hit"],
        "mean_iou[original]": pytest.approx(float(Fraction(entry["iou"])), abs=1e-12),
        "parse_failure_rate": entry["parse_failure"],
    }
    assert score_example(entry["prediction"], entry["box"]) == expected
    assert task_functions.process_ground({"box": entry["box"]}, [entry["prediction"]]) == expected
