"""VQA accuracy: what scores consist of, and what is refused. Its values are in tests/conformance."""

import pytest

from pilot.evaluation import vqa


def test_at_most_32_periods_are_stripped() -> None:
    # The official script passes re.UNICODE (32) as re.sub's count.
    assert vqa.normalise("." * 40) == "." * 8


def test_contractions_have_one_apostrophe_less() -> None:
    assert len(vqa.CONTRACTIONS) == 114
    assert vqa.CONTRACTIONS["'ows'at"] == "'ow's'at"
    assert vqa.CONTRACTIONS["twas"] == "'twas"


def test_errors() -> None:
    with pytest.raises(ValueError, match="without references"):
        vqa.accuracy("yes", [])
    with pytest.raises(ValueError, match="without references"):
        vqa.exact_match("yes", [])
    with pytest.raises(ValueError, match="variant is 'offical'"):
        vqa.accuracy("yes", ["yes"], variant="offical")


def test_score_names_the_variants() -> None:
    one = vqa.score({"a": "Red", "b": "blue"}, {"a": ["red"], "b": ["green"]})
    assert {name: result.value for name, result in one.items()} == {"exact_match": 0.5}
    assert one["exact_match"].per_example == {"a": 1.0, "b": 0.0}
    ten = vqa.score({"a": "Yes"}, {"a": ["yes"] * 10})
    assert {n: r.value for n, r in ten.items()} == {"vqa_official": 0.0, "vqa_always_normalised": 1.0}


def test_score_refuses_what_it_cannot_average() -> None:
    with pytest.raises(ValueError, match="no examples"):
        vqa.score({}, {})
    with pytest.raises(ValueError, match="1 of 2 examples have no prediction, first: 'b'"):
        vqa.score({"a": "x"}, {"a": ["x"], "b": ["x"]})
    with pytest.raises(ValueError, match="1 predictions have no reference, first: 'b'"):
        vqa.score({"a": "x", "b": "x"}, {"a": ["x"]})
    with pytest.raises(ValueError, match="score them as two sets"):
        vqa.score({"a": "x", "b": "x"}, {"a": ["x"], "b": ["x"] * 10})
