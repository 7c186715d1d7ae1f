"""VQA accuracy, after the official evaluation script.

Source: Antol et al., "VQA: Visual Question Answering", ICCV 2015, and the script of the VQA v2 challenge
(https://visualqa.org/evaluation.html). Reimplemented from its definition, including its quirks:

- a period is dropped unless a digit follows it, and at most 32 periods of an answer are dropped (the script
  passes `re.UNICODE`, which is 32, where `re.sub` expects a count);
- a punctuation mark is removed if any of its occurrences is next to a space, or if the answer contains a comma
  between digits; otherwise it becomes a space;
- if all human answers agree, answers are compared as they are, without lower-casing (variant "official").
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from pilot.evaluation.result import MetricResult, check_ids, mean_result

VARIANTS = ("official", "always_normalised")
OFFICIAL_NUM_REFERENCES = 10

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_MAX_PERIODS = int(re.UNICODE)
_DIGIT_COMMA = re.compile(r"\d,\d")
_ARTICLES = frozenset(("a", "an", "the"))
_DIGIT_WORDS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4",
    "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ONE_APOSTROPHE = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_MORE_APOSTROPHES = """
couldn't've hadn't've he'd've it'd've mightn't've 'ow's'at she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've
"""


def _contractions() -> dict[str, str]:
    """Map contractions that lack one apostrophe to the correct form; "somebody'd" is reversed as in the script."""
    table = {form.replace("'", ""): form for form in _ONE_APOSTROPHE.split()}
    for form in _MORE_APOSTROPHES.split():
        table |= {form[:i] + form[i + 1 :]: form for i, letter in enumerate(form) if letter == "'"}
    return table | {"somebody'd": "somebodyd"}


CONTRACTIONS = _contractions()


def strip_punctuation(text: str) -> str:
    """Apply the official punctuation rule."""
    stripped = text
    has_digit_comma = _DIGIT_COMMA.search(text) is not None
    for mark in _PUNCTUATION:
        touches_space = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if touches_space or has_digit_comma else " ")
    return _PERIOD.sub("", stripped, count=_MAX_PERIODS)


def normalise_words(text: str) -> str:
    """Apply the official word rule: lower case, digits for number words, no articles, apostrophes in contractions."""
    words = (_DIGIT_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def clean(text: str) -> str:
    """Replace newlines and tabs by spaces and strip the ends; used for every answer in every variant."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """Apply the official normalisation: clean, punctuation, then words."""
    return normalise_words(strip_punctuation(clean(text)))


def accuracy(prediction: str, references: Sequence[str], variant: str = "official") -> float:
    """Return the accuracy of one answer, in 0..1.

    With several references (the official data has ten): min(1, matches / 3), averaged over the subsets that leave one
    reference out. With one reference: exact match after normalisation, in both variants.

    Args:
        prediction: The model's answer.
        references: The human answers, at least one.
        variant: "official" normalises only when the human answers differ; "always_normalised" always does.

    Raises:
        ValueError: no references, or an unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}, expected one of {', '.join(VARIANTS)}")
    if len(references) <= 1:
        return exact_match(prediction, references)
    answer, humans = clean(prediction), [clean(reference) for reference in references]
    if variant == "always_normalised" or len(set(humans)) > 1:
        answer, humans = normalise(answer), [normalise(human) for human in humans]
    matches = [human == answer for human in humans]
    total = sum(matches)
    # The sum is an exact number of thirds; a single division gives the floats 0.3, 0.6, 0.9 and 1.0.
    return sum(min(3, total - match) for match in matches) / (3 * len(humans))


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if the normalised answer equals one of the normalised references, else 0.0.

    An answer that normalises to nothing ("The", "?") is compared with the references after `clean` only.

    Raises:
        ValueError: no references.
    """
    if not references:
        raise ValueError("an answer cannot be scored without references")
    rule = normalise if normalise(prediction) else clean
    return float(rule(prediction) in map(rule, references))


def score_example(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """Compute the metrics that apply to an example: two official variants with ten references, else exact match."""
    if len(references) == OFFICIAL_NUM_REFERENCES:
        return {f"vqa_{variant}": accuracy(prediction, references, variant) for variant in VARIANTS}
    return {"exact_match": exact_match(prediction, references)}


def score(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, MetricResult]:
    """Score a set of answers by id.

    Raises:
        ValueError: no examples, ids that differ, an example without references, or a set in which some examples
            have ten references and others do not (no single metric covers it).
    """
    check_ids(predictions, references)
    values: dict[str, dict[str, float]] = {}
    for example_id in sorted(references):
        for metric, value in score_example(predictions[example_id], references[example_id]).items():
            values.setdefault(metric, {})[example_id] = value
    if any(len(per_example) != len(references) for per_example in values.values()):
        raise ValueError("some examples have ten references and others do not: score them as two sets")
    return {metric: mean_result(per_example) for metric, per_example in values.items()}
