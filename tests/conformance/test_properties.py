"""What holds for any answers: ranges, order, symmetry, and agreement with `formulas`."""

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.evaluation import caption, grounding, java_tools, vqa
from pilot.evaluation.grounding import Box

from . import formulas
from .fixture_files import NO_JAVA, split_at_spaces

# The first example of a test imports libraries, which takes longer than hypothesis grants an example.
relaxed = settings(deadline=None)

answers = st.sampled_from(["yes", "Yes.", "yes it is", "no", "two", "2", "a dog", "dog", "dont", "don't", "the", ""])
fractions = st.floats(0, 1, allow_nan=False)
boxes = st.tuples(fractions, fractions, fractions, fractions).map(
    lambda v: Box(min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))
)
corners = st.lists(st.integers(0, 100), min_size=2, max_size=2).map(sorted)
hundredths = st.tuples(corners, corners).map(lambda c: (c[0][0], c[1][0], c[0][1], c[1][1]))
sentences = st.lists(st.sampled_from("abcde"), max_size=7).map(" ".join)
references = st.lists(sentences.filter(bool), min_size=1, max_size=3)
image_sets = st.lists(st.tuples(sentences, references), min_size=1, max_size=5)


def score(images: list[tuple[str, list[str]]], order: list[int] | None = None) -> caption.Results:
    """Captioning metrics without Java; `order` is the order in which the images are given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(java_tools, "tokenise", split_at_spaces)
        chosen = order or list(range(len(images)))
        return caption.score({str(i): images[i][0] for i in chosen}, {str(i): images[i][1] for i in chosen}, NO_JAVA)


@relaxed
@given(answers, st.lists(answers, min_size=2, max_size=10))
def test_vqa_accuracy_is_the_mean_over_subsets(prediction: str, people: list[str]) -> None:
    normalised = [vqa.normalise(person) == vqa.normalise(prediction) for person in people]
    plain = [person == prediction for person in people]
    official = normalised if len(set(people)) > 1 else plain
    for variant, matches in (("always_normalised", normalised), ("official", official)):
        assert vqa.accuracy(prediction, people, variant) == float(formulas.leave_one_out(matches))


@relaxed
@given(st.text(), st.lists(st.text(), min_size=1, max_size=10), st.sampled_from(vqa.VARIANTS))
def test_vqa_accuracy_is_in_range(prediction: str, people: list[str], variant: str) -> None:
    assert 0.0 <= vqa.accuracy(prediction, people, variant) <= 1.0


@relaxed
@given(st.lists(st.tuples(answers, st.lists(answers, min_size=10, max_size=10)), min_size=1, max_size=5), st.data())
def test_vqa_order_changes_nothing(examples: list[tuple[str, list[str]]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(examples))))
    mixed = [(prediction, data.draw(st.permutations(people))) for prediction, people in examples]
    given_order = vqa.score({str(i): e[0] for i, e in enumerate(examples)}, {str(i): e[1] for i, e in enumerate(mixed)})
    other_order = vqa.score({str(i): mixed[i][0] for i in order}, {str(i): examples[i][1] for i in order})
    assert given_order == other_order


@relaxed
@given(hundredths, hundredths)
def test_boxes_of_two_decimals_are_exact(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    text = f"[{', '.join(f'{value / 100:.2f}' for value in a)}]"
    overlap = formulas.iou(a, b)
    scores = grounding.score_example(text, [value / 100 for value in b])
    assert scores["acc@0.5[original]"] == (overlap >= Fraction(1, 2))
    assert scores["mean_iou[original]"] == pytest.approx(float(overlap), abs=1e-12)
    assert scores["parse_failure_rate"] == 0.0


@relaxed
@given(boxes, boxes)
def test_iou_is_symmetric_and_in_range(a: Box, b: Box) -> None:
    assert grounding.iou(a, b) == grounding.iou(b, a)
    assert 0.0 <= grounding.iou(a, b) <= 1.0


@relaxed
@given(st.lists(st.tuples(boxes, boxes), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_grounding_order_changes_nothing(pairs: list[tuple[Box, Box]], rng: random.Random) -> None:
    order = list(range(len(pairs)))
    rng.shuffle(order)
    given_order, other_order = (
        grounding.score({str(i): str(list(pairs[i][0])) for i in indices}, {str(i): pairs[i][1] for i in indices})
        for indices in (range(len(pairs)), order)
    )
    assert given_order == other_order


@relaxed
@given(image_sets)
def test_captions_by_formula(images: list[tuple[str, list[str]]]) -> None:
    results = score(images)
    tokens = {
        str(i): formulas.Image(text.split(), [reference.split() for reference in group])
        for i, (text, group) in enumerate(images)
    }
    for n, name in enumerate(caption.BLEU, start=1):
        assert results[name].value == pytest.approx(formulas.bleu(list(tokens.values()), n), abs=1e-6)
    rouge = {i: formulas.rouge_l(image) if image.caption else 0.0 for i, image in tokens.items()}
    assert results["ROUGE-L"].per_example == pytest.approx(rouge, abs=1e-6)
    assert results["CIDEr"].per_example == pytest.approx(formulas.cider_d(tokens), abs=1e-6)


@relaxed
@given(image_sets)
def test_captions_are_in_range(images: list[tuple[str, list[str]]]) -> None:
    for name, result in score(images).items():
        most = 10 if name == "CIDEr" else 1
        for value in (result.value, *(result.per_example or {}).values()):
            assert value is not None and 0 <= value <= most + 1e-9, name


@relaxed
@given(image_sets, st.data())
def test_caption_order_changes_nothing(images: list[tuple[str, list[str]]], data: st.DataObject) -> None:
    results = score(images)
    assert score(images, data.draw(st.permutations(range(len(images))))) == results
    mixed = [(text, data.draw(st.permutations(group))) for text, group in images]
    for name, result in score(mixed).items():
        assert result.value == pytest.approx(results[name].value, abs=1e-9), name


@relaxed
@given(st.lists(st.tuples(st.lists(fractions, min_size=3, max_size=3), st.integers(1, 9)), min_size=1, max_size=4))
def test_mean_of_a_tensor_does_not_depend_on_the_others(clients: list[tuple[list[float], int]]) -> None:
    """A running total of weights must start anew for every key."""
    import torch

    from pilot.methods.base import weighted_mean

    states = [({k: torch.tensor(v) for k, v in zip("abc", values, strict=True)}, n) for values, n in clients]
    together = weighted_mean(states)
    for key in "abc":
        alone = weighted_mean([({key: state[key]}, count) for state, count in states])
        assert torch.equal(together[key], alone[key])
