"""Captioning metrics: sets, errors and what is unavailable. Values are in tests/conformance."""

from collections.abc import Iterable
from pathlib import Path

import pytest

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
def test_cider_of_one_image_is_zero_and_says_so() -> None:
    result = caption.score({"1": "a cat"}, {"1": ["a cat"]}, ["CIDEr"])["CIDEr"]
    assert result == MetricResult(0.0, {"1": 0.0}, "ok", caption.SINGLE_IMAGE)


@pytest.mark.usefixtures("split_on_spaces")
def test_every_set_has_its_own_document_frequencies() -> None:
    pool = {"1": ["a red cat sits"], "2": ["a dog runs fast"], "3": ["the red dog eats"]}
    captions = {"1": "a red dog", "2": "a dog", "3": "the red dog"}
    sets = {ids: ({i: captions[i] for i in ids}, {i: pool[i] for i in ids}) for ids in (("1", "2"), ("1", "2", "3"))}
    together = caption.score_sets(sets, NO_JAVA)
    for ids, (predictions, references) in sets.items():
        assert together[ids] == caption.score(predictions, references, NO_JAVA)
    assert caption.score_sets({}) == {}


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


@pytest.mark.java
@pytest.mark.usefixtures("split_on_spaces")
def test_spice_jars_that_do_not_work_give_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in java_tools.SPICE_MODELS:
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setenv(java_tools.SPICE_JARS_VARIABLE, str(tmp_path))
    result = caption.score(PREDICTIONS, REFERENCES, ["SPICE"])["SPICE"]
    assert result.value is None and "Java ended with code" in result.reason


@pytest.mark.java
def test_tokens_of_a_caption_do_not_depend_on_its_neighbours() -> None:
    # On adjacent lines, "object b." is "object b" or "object b." with the first letter of the next line.
    sentence = "Read object b."
    tokens = {neighbour: java_tools.tokenise([sentence, neighbour])[sentence] for neighbour in ("Zebra", "a dog")}
    assert tokens["Zebra"] == tokens["a dog"] == java_tools.tokenise([sentence])[sentence]
    assert java_tools.tokenise(["", " \n", "A dog."]) == {"": "", " \n": "", "A dog.": "a dog"}
