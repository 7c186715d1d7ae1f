"""Captioning metrics by their official definitions: BLEU-1..4, METEOR, ROUGE-L, CIDEr, SPICE.

BLEU and ROUGE-L are `pycocoevalcap`'s; METEOR, SPICE and the PTB tokeniser are the official Java programs
(`java_tools`); CIDEr is in `cider`. Whitespace inside a caption is collapsed first: an embedded newline crashes
METEOR, and CR or U+2028 makes the tokeniser assign captions to the wrong images. Many systems are scored with one
tokeniser call and one METEOR process. Values are in 0..1, CIDEr in 0..10.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from pilot.evaluation import java_tools
from pilot.evaluation.cider import CiderReferences
from pilot.evaluation.result import MetricResult, check_ids, mean_result, unavailable

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
METRICS = (*BLEU, "METEOR", "ROUGE-L", "CIDEr", "SPICE")
SINGLE_IMAGE = "CIDEr of a single image is 0 by its definition: every n-gram has document frequency 1 of 1"


class Pair(NamedTuple):
    """A tokenised caption and its tokenised references."""

    prediction: str
    references: tuple[str, ...]


Captions = tuple[Mapping[str, str], Mapping[str, Sequence[str]]]
Corpus = dict[str, Pair]
Results = dict[str, MetricResult]
Key = TypeVar("Key", bound=Hashable)


def score(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], metrics: Sequence[str] = METRICS
) -> Results:
    """Score one system's captions against references, both by image id.

    A metric that cannot be computed (no Java, no SPICE jars) is "unavailable" with the reason, never 0. Every metric
    has per-example values; BLEU and METEOR of a set are not the means of these.

    Args:
        predictions: Image id -> caption.
        references: Image id -> human captions, at least one for each image.
        metrics: Names from `METRICS`.

    Raises:
        ValueError: no images, ids that differ, an image without references or with a blank one, unknown metric.
        TypeError: the references of an image are a string instead of a list.
    """
    return score_sets({"": (predictions, references)}, metrics)[""]


def score_sets(sets: Mapping[Key, Captions], metrics: Sequence[str] = METRICS) -> dict[Key, Results]:
    """Score several sets of (predictions, references), each with its own images, together; see `score`."""
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise ValueError(f"unknown metric {unknown[0]!r}, expected names out of {', '.join(METRICS)}")
    for predictions, references in sets.values():
        check_captions(predictions, references)
    if not sets:
        return {}
    try:
        corpora = _tokenise(sets)
    except java_tools.JavaError as error:
        return {key: {metric: unavailable(str(error)) for metric in metrics} for key in sets}
    results: dict[Key, Results] = {key: {} for key in sets}
    for names, scorer in _SCORERS:
        if set(names) & set(metrics):
            for key, scored in zip(corpora, scorer(list(corpora.values())), strict=True):
                results[key] |= scored
    return {key: {metric: scored[metric] for metric in metrics} for key, scored in results.items()}


def check_captions(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    """Require one caption per image and references with text; raise ValueError or TypeError as `score` does."""
    check_ids(predictions, references)
    for key, group in references.items():
        if isinstance(group, str):
            raise TypeError(f"references of {key!r} are one string, expected a list of captions")
        if not group or not all(reference.strip() for reference in group):
            raise ValueError(f"image {key!r} has no references, or a blank one")


def _tokenise(sets: Mapping[Key, Captions]) -> dict[Key, Corpus]:
    """Tokenise every distinct caption of all sets once; sort the images by id."""
    distinct = {text for predictions, _ in sets.values() for text in predictions.values()}
    distinct |= {text for _, references in sets.values() for group in references.values() for text in group}
    tokens = java_tools.tokenise(distinct)
    return {
        key: {i: Pair(tokens[predictions[i]], tuple(tokens[r] for r in references[i])) for i in sorted(references)}
        for key, (predictions, references) in sets.items()
    }


def _bleu(corpora: Sequence[Corpus]) -> list[Results]:
    """Compute BLEU with pycocoevalcap's scorer; count n-grams once per distinct (caption, references)."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer, cook_refs, cook_test

    distinct = {pair for corpus in corpora for pair in corpus.values()}
    cooked = {references: cook_refs(references) for references in {pair.references for pair in distinct}}
    counts = {pair: cook_test(pair.prediction, cooked[pair.references]) for pair in distinct}
    results = []
    for corpus in corpora:
        scorer = BleuScorer(n=len(BLEU))
        scorer.crefs = [cooked[pair.references] for pair in corpus.values()]
        scorer.ctest = [counts[pair] for pair in corpus.values()]
        values, segments = scorer.compute_score(option="closest", verbose=0)
        results.append({name: _result(corpus, v, s) for name, v, s in zip(BLEU, values, segments, strict=True)})
    return results


def _rouge(corpora: Sequence[Corpus]) -> list[Results]:
    """Compute ROUGE-L with pycocoevalcap, once per distinct (caption, references)."""
    from pycocoevalcap.rouge.rouge import Rouge

    rouge = Rouge()
    distinct = {pair for corpus in corpora for pair in corpus.values()}
    values = {pair: float(rouge.calc_score([pair.prediction], list(pair.references))) for pair in distinct}
    return [{"ROUGE-L": mean_result({i: values[pair] for i, pair in corpus.items()})} for corpus in corpora]


def _cider(corpora: Sequence[Corpus]) -> list[Results]:
    """Compute CIDEr; weigh the references once for all sets with the same images and references."""
    shared: dict[tuple[tuple[str, tuple[str, ...]], ...], CiderReferences] = {}
    results: list[Results] = []
    for corpus in corpora:
        images = tuple((i, pair.references) for i, pair in corpus.items())
        if images not in shared:
            shared[images] = CiderReferences(dict(images))
        scorer = shared[images]
        if not scorer.has_words:
            results.append({"CIDEr": unavailable("no reference of the set has a word")})
            continue
        result = mean_result({i: scorer.score(i, pair.prediction) for i, pair in corpus.items()})
        if len(corpus) == 1:
            result = MetricResult(0.0, {i: 0.0 for i in corpus}, reason=SINGLE_IMAGE)
        results.append({"CIDEr": result})
    return results


def _meteor(corpora: Sequence[Corpus]) -> list[Results]:
    """Compute METEOR in one process; align each distinct (caption, references) once."""
    distinct = sorted({pair for corpus in corpora for pair in corpus.values()})
    try:
        with java_tools.Meteor() as meteor:
            statistics = {pair: meteor.statistics(pair.prediction, pair.references) for pair in distinct}
            scored = [meteor.scores([statistics[pair] for pair in corpus.values()]) for corpus in corpora]
    except java_tools.JavaError as error:
        return [{"METEOR": unavailable(str(error))} for _ in corpora]
    pairs = zip(corpora, scored, strict=True)
    return [{"METEOR": _result(corpus, value, segments)} for corpus, (value, segments) in pairs]


def _spice(corpora: Sequence[Corpus]) -> list[Results]:
    """Compute SPICE in one process; report it as unavailable without its jars."""
    distinct = sorted({pair for corpus in corpora for pair in corpus.values()})
    try:
        values = dict(zip(distinct, java_tools.spice(distinct), strict=True))
        return [{"SPICE": mean_result({i: values[pair] for i, pair in c.items()})} for c in corpora]
    except java_tools.JavaError as error:
        return [{"SPICE": unavailable(str(error))} for _ in corpora]


def _result(corpus: Corpus, value: float, segments: Sequence[float]) -> MetricResult:
    return MetricResult(float(value), {i: float(s) for i, s in zip(corpus, segments, strict=True)})


_SCORERS: tuple[tuple[tuple[str, ...], Callable[[Sequence[Corpus]], list[Results]]], ...] = (
    (BLEU, _bleu),
    (("METEOR",), _meteor),
    (("ROUGE-L",), _rouge),
    (("CIDEr",), _cider),
    (("SPICE",), _spice),
)
