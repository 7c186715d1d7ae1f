"""VQA accuracy: literal values for each rule of the official script."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.evaluation import vqa

TEN = ["two"] * 2 + ["2"] * 1 + ["three"] * 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("  a\nred\tcar ", "red car"),
        ("The Cat", "cat"),
        ("an apple", "apple"),
        ("none", "0"),
        ("Ten", "10"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("o'clock", "o'clock"),
        ("stop.", "stop"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("U.S.A.", "usa"),
        (".5", ".5"),
        ("blue/green", "blue green"),  # no space touches the mark: it becomes a space
        ("blue / green", "blue green"),  # a space touches it: it becomes nothing
        ("1,000", "1000"),  # comma between digits
        ("1,000/2", "10002"),  # ... and then every mark becomes nothing
        ("yes, no", "yes no"),
        ("red,blue", "red blue"),
        ("t-shirt", "t shirt"),
        ("it's", "it's"),
        ("7:30", "7:30"),  # the colon is not in the official list
        ("", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert vqa.normalise(text) == expected


def test_at_most_32_periods_are_stripped() -> None:
    # The official script passes re.UNICODE (32) as re.sub's count.
    assert vqa.normalise("." * 40) == "." * 8


def test_contractions_have_one_apostrophe_less() -> None:
    assert len(vqa.CONTRACTIONS) == 114
    assert vqa.CONTRACTIONS["'ows'at"] == "'ow's'at"
    assert vqa.CONTRACTIONS["twas"] == "'twas"


def test_ten_references_leave_one_out() -> None:
    # 3 of 10 match. Leaving out a match (3 times): 2/3; leaving out another (7 times): 3/3. (3*2/3 + 7) / 10 = 0.9.
    assert vqa.accuracy("2", TEN) == 0.9
    # 1 of 10: once 0, nine times 1/3. 2 of 10: twice 1/3, eight times 2/3. 4 of 10: always 1.
    assert vqa.accuracy("x", ["x"] + ["y"] * 9) == 0.3
    assert vqa.accuracy("x", ["x"] * 2 + ["y"] * 8) == 0.6
    assert vqa.accuracy("x", ["x"] * 4 + ["y"] * 6) == 1.0
    assert vqa.accuracy("z", ["x"] * 4 + ["y"] * 6) == 0.0


def test_official_normalises_only_when_humans_differ() -> None:
    agreed = ["yes"] * 10
    assert vqa.accuracy("Yes.", agreed) == 0.0
    assert vqa.accuracy("Yes.", agreed, variant="always_normalised") == 1.0
    assert vqa.accuracy(" yes\n", agreed) == 1.0  # newlines, tabs and ends are cleaned in every variant
    assert vqa.accuracy("Yes.", ["yes"] * 9 + ["no"]) == 1.0
    # Agreement is judged after cleaning, before normalisation: "Yes" and "yes" differ.
    assert vqa.accuracy("YES", ["yes"] * 9 + ["Yes"]) == 1.0
    assert vqa.accuracy("YES", ["yes"] * 9 + ["yes\n"]) == 0.0


def test_one_reference_is_exact_match_after_normalisation() -> None:
    assert vqa.accuracy("The Circle.", ["circle"]) == 1.0
    assert vqa.accuracy("circles", ["circle"]) == 0.0
    assert vqa.accuracy("", ["circle"]) == 0.0
    assert vqa.exact_match("a dog", ["cat", "Dog"]) == 1.0


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


@given(st.permutations(["a car", "car", "Car.", "truck", "van", "bus", "2", "two", "cab", "vehicle"]))
def test_order_of_references_does_not_matter(references: list[str]) -> None:
    # Normalised, "car" is there three times: (3 * 2/3 + 7 * 1) / 10.
    assert vqa.accuracy("car", references) == 0.9


@given(st.text(), st.lists(st.text(), min_size=1, max_size=10), st.sampled_from(vqa.VARIANTS))
def test_range(prediction: str, references: list[str], variant: str) -> None:
    assert 0.0 <= vqa.accuracy(prediction, references, variant) <= 1.0
