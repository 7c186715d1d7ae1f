"""Answers against `fixtures/vqa.json`."""

import pytest

from pilot.evaluation import vqa
from pilot.evaluation.tasks import task_functions

from .fixture_files import Entry, load, people

FIXTURES = load("vqa")


@pytest.mark.parametrize("entry", FIXTURES["normalise"], ids=lambda entry: ascii(entry["text"]))
def test_normalise(entry: Entry) -> None:
    assert vqa.normalise(entry["text"]) == entry["expected"], entry["why"]


@pytest.mark.parametrize("entry", FIXTURES["accuracy"], ids=lambda entry: ascii(entry["prediction"]))
def test_accuracy_with_ten_references(entry: Entry) -> None:
    references = people(entry["references"])
    assert len(references) == 10
    expected = {f"vqa_{variant}": entry[variant] for variant in vqa.VARIANTS}
    assert vqa.score_example(entry["prediction"], references) == expected, entry["why"]
    assert task_functions.process_vqa({"references": references}, [entry["prediction"]]) == expected


@pytest.mark.parametrize("entry", FIXTURES["exact_match"], ids=lambda entry: ascii(entry["prediction"]))
def test_exact_match(entry: Entry) -> None:
    expected = {"exact_match": entry["expected"]}
    assert vqa.score_example(entry["prediction"], entry["references"]) == expected, entry["why"]
    assert task_functions.process_vqa({"references": entry["references"]}, [entry["prediction"]]) == expected


@pytest.mark.parametrize("variant", vqa.VARIANTS)
def test_accuracy_with_one_reference_is_exact_match(variant: str) -> None:
    for entry in [entry for entry in FIXTURES["exact_match"] if len(entry["references"]) == 1]:
        assert vqa.accuracy(entry["prediction"], entry["references"], variant) == entry["expected"], entry["why"]
