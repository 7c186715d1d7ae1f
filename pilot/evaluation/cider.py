"""CIDEr-D over one set of references, for many systems.

Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, with the clipping and length
penalty of the COCO server (CIDEr-D). The numbers equal those of `pycocoevalcap.cider`, term by term; that library
recomputes the reference vectors for every system, which takes most of its time.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MAX_N = 4
SIGMA = 6.0

NGram = tuple[str, ...]


class _Vector(NamedTuple):
    """TF-IDF weights per n-gram length (index n - 1), their norms, and the number of bigrams (the length)."""

    weights: list[dict[NGram, float]]
    norms: list[float]
    length: int


def _count(tokens: str) -> Counter[NGram]:
    words = tokens.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, MAX_N + 1) for i in range(len(words) - n + 1))


class CiderReferences:
    """Scorer of captions against the tokenised references of a set, by id.

    The document frequency of an n-gram is the number of images of this set with the n-gram in a reference, so the
    score of a caption depends on the set that it is scored in.
    """

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        """Count n-grams, then compute the TF-IDF weights of the references."""
        import numpy as np

        counts = {key: [_count(reference) for reference in group] for key, group in references.items()}
        frequency = Counter(ngram for group in counts.values() for ngram in set().union(*group))
        # numpy's logarithm, as in pycocoevalcap: the C library's may differ in the last bit.
        self._log = {n: float(np.log(float(n))) for n in {1, len(references), *frequency.values()}}
        self._frequency = frequency
        self._log_num_images = self._log[len(references)]
        self._vectors = {key: [self._weigh(count) for count in group] for key, group in counts.items()}
        self._scores: dict[tuple[str, str], float] = {}
        self.has_words = bool(frequency)

    def score(self, key: str, prediction: str) -> float:
        """Return the CIDEr-D (0..10) of a tokenised caption of image `key`."""
        if (key, prediction) not in self._scores:
            vector = self._weigh(_count(prediction))
            totals = [0.0] * MAX_N
            for reference in self._vectors[key]:
                totals = [a + b for a, b in zip(totals, _similarity(vector, reference), strict=True)]
            mean = (((totals[0] + totals[1]) + totals[2]) + totals[3]) / MAX_N
            self._scores[key, prediction] = mean / len(self._vectors[key]) * 10.0
        return self._scores[key, prediction]

    def _weigh(self, counts: Counter[NGram]) -> _Vector:
        weights: list[dict[NGram, float]] = [{} for _ in range(MAX_N)]
        squares = [0.0] * MAX_N
        length = 0
        for ngram, count in counts.items():
            n = len(ngram) - 1
            weight = float(count) * (self._log_num_images - self._log[self._frequency.get(ngram, 1)])
            weights[n][ngram] = weight
            squares[n] += weight**2
            length += count if n == 1 else 0
        return _Vector(weights, [math.sqrt(square) for square in squares], length)


def _similarity(prediction: _Vector, reference: _Vector) -> list[float]:
    """Compute the clipped cosine per n-gram length, times the Gaussian penalty of the difference in length."""
    delta = float(prediction.length - reference.length)
    penalty = math.e ** (-(delta**2) / (2 * SIGMA**2))
    values = []
    for n in range(MAX_N):
        value, other = 0.0, reference.weights[n]
        for ngram, weight in prediction.weights[n].items():
            if ngram in other:
                value += min(weight, other[ngram]) * other[ngram]
        if prediction.norms[n] != 0 and reference.norms[n] != 0:
            value /= prediction.norms[n] * reference.norms[n]
        values.append(value * penalty)
    return values
