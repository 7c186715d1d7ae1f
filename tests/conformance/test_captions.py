"""Tokenised captions against `fixtures/captions.json`, without Java: suite, pycocoevalcap and formulas agree."""

import math

import pytest

from pilot.errors import UserError
from pilot.evaluation import caption, java_tools
from pilot.evaluation.tasks import task_functions

from . import formulas
from .fixture_files import NO_JAVA, Entry, captions_of, load, split_at_spaces

SETS = load("captions")["tokenised"]
CORPUS_FUNCTIONS = {
    "BLEU-1": task_functions.corpus_bleu_1,
    "BLEU-2": task_functions.corpus_bleu_2,
    "BLEU-3": task_functions.corpus_bleu_3,
    "BLEU-4": task_functions.corpus_bleu_4,
    "ROUGE-L": task_functions.corpus_rouge_l,
    "CIDEr": task_functions.corpus_cider,
}

Values = dict[str, float]
"""By metric; NaN where there is none."""


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words between spaces; METEOR is unavailable."""
    monkeypatch.setattr(java_tools, "tokenise", split_at_spaces)
    monkeypatch.setattr(java_tools, "_java", lambda: "/nowhere/java")


def by_suite(captions: caption.Captions) -> Values:
    """The values of `caption.score`."""
    results = caption.score(*captions, NO_JAVA)
    return {metric: math.nan if result.value is None else result.value for metric, result in results.items()}


def by_formula(captions: caption.Captions) -> Values:
    """The values of `formulas`; as in pycocoevalcap, ROUGE-L splits at single spaces, so nothing is one empty word."""
    predictions, references = captions
    words = split_at_spaces([*predictions.values(), *(text for group in references.values() for text in group)])
    images, spaced = {}, []
    for name, text in predictions.items():
        group = [words[reference] for reference in references[name]]
        images[name] = formulas.Image(words[text].split(), [reference.split() for reference in group])
        spaced.append(formulas.Image(words[text].split(" "), [reference.split(" ") for reference in group]))
    values: Values = {f"BLEU-{n}": formulas.bleu(list(images.values()), n) for n in (1, 2, 3, 4)}
    values["ROUGE-L"] = sum(map(formulas.rouge_l, spaced)) / len(images)
    has_words = any(reference for image in images.values() for reference in image.references)
    values["CIDEr"] = sum(formulas.cider_d(images).values()) / len(images) if has_words else math.nan
    return values


def by_pycocoevalcap(captions: caption.Captions) -> Values:
    """The values of the library's own classes; its CIDEr ends with an error where no reference has a word."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    predictions, references = captions
    words = split_at_spaces([*predictions.values(), *(text for group in references.values() for text in group)])
    results = {name: [words[text]] for name, text in predictions.items()}
    truth = {name: [words[text] for text in group] for name, group in references.items()}
    values: Values = dict(zip(caption.BLEU, Bleu(4).compute_score(truth, results, verbose=0)[0], strict=True))
    values["ROUGE-L"] = float(Rouge().compute_score(truth, results)[0])
    try:
        values["CIDEr"] = float(Cider().compute_score(truth, results)[0])
    except ValueError as error:
        assert "empty" in str(error)
        values["CIDEr"] = math.nan
    return values


@pytest.mark.parametrize("entry", SETS, ids=lambda entry: entry["name"])
def test_values_worked_out_by_hand(entry: Entry) -> None:
    values = by_suite(captions_of(entry["images"]))
    for metric, expected in entry["expected"].items():
        value = math.nan if expected["value"] is None else expected["value"]
        assert values[metric] == pytest.approx(value, abs=1e-6, nan_ok=True), (metric, expected["why"])


@pytest.mark.parametrize("entry", SETS, ids=lambda entry: entry["name"])
def test_suite_library_and_formulas_agree(entry: Entry) -> None:
    captions = captions_of(entry["images"])
    suite = by_suite(captions)
    assert by_formula(captions) == pytest.approx(suite, abs=1e-6, nan_ok=True)
    assert by_pycocoevalcap(captions) == pytest.approx(suite, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("entry", SETS, ids=lambda entry: entry["name"])
def test_lm_eval_gets_the_same_values(entry: Entry) -> None:
    documents = [(image, image["prediction"]) for image in entry["images"]]
    items = [task_functions.process_caption(document, [answer]) for document, answer in documents]
    for metric, value in by_suite(captions_of(entry["images"])).items():
        aggregated = CORPUS_FUNCTIONS[metric]([item[metric] for item in items])
        assert aggregated == pytest.approx(value, rel=1e-12, nan_ok=True)


def test_a_value_says_what_is_special_about_it() -> None:
    reasons = {}
    for entry in SETS:
        result = caption.score(*captions_of(entry["images"]), ["CIDEr"])["CIDEr"]
        reasons[entry["name"]] = (result.status, result.reason)
    special = {name: reason for name, reason in reasons.items() if reason != ("ok", "")}
    one_image = {entry["name"] for entry in SETS if len(entry["images"]) == 1}
    assert special == dict.fromkeys(one_image, ("ok", caption.SINGLE_IMAGE)) | {
        "no reference has words": ("unavailable", "no reference of the set has a word")
    }


def test_two_captions_of_one_id_are_refused() -> None:
    items = [("1", "a cat", ("a cat",)), ("2", "a dog", ("a dog",)), ("1", "a cow", ("a cow",))]
    with pytest.raises(UserError, match="two captions have the id '1'"):
        task_functions.corpus_cider(items)
