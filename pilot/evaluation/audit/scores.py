"""Measures of attacks on samples, with bootstrap intervals over images.

Samples of one image are resampled together. An interval is the middle 95 % of the bootstrap's values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pilot.io.seeding import generator

DRAWS = 400
FALSE_POSITIVE_RATE = 0.01
_Weighted = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval; None where samples do not define it."""

    value: float | None
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Scored:
    """Scores of candidates, larger for those that an attack takes for members, and the truth.

    Attributes:
        scores: (S,) a score for each candidate.
        members: (S,) whether it is a member.
        images: (S,) the image of each, by which samples are drawn.
    """

    scores: np.ndarray
    members: np.ndarray
    images: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["Scored"]) -> "Scored":
        """Return the samples of all parts as one set, judged by one threshold."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def area(scored: Scored) -> Estimate:
    """Estimate the area under the ROC curve: the probability that a member scores higher; ties count half."""
    return _bootstrap(lambda weights: weighted_area(scored, weights), scored.images)


def hits_at_few_false(scored: Scored, rate: float = FALSE_POSITIVE_RATE) -> Estimate:
    """Estimate the share of members above the lowest threshold with at most `rate` false positives."""
    return _bootstrap(lambda weights: weighted_hits(scored, weights, rate), scored.images)


def mean(values: Sequence[float], units: Sequence[str]) -> Estimate:
    """Estimate the mean of values, resampled by units (images, or clients)."""
    numbers = np.asarray(values, dtype=float)

    def weighted(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray(weights @ numbers / weights.sum(axis=1))

    return _bootstrap(weighted, np.asarray(units))


def weighted_area(scored: Scored, weights: np.ndarray) -> np.ndarray:
    """Return the area (W,) for each row of sample weights (W, S); NaN without members or without others."""
    members, others = _by_score(scored, weights)
    below = np.cumsum(others, axis=1) - others
    with np.errstate(invalid="ignore"):
        return np.asarray((members * (below + others / 2)).sum(1) / (members.sum(1) * others.sum(1)))


def weighted_hits(scored: Scored, weights: np.ndarray, rate: float) -> np.ndarray:
    """Return the share of members found (W,) at a false positive rate, for each row of sample weights (W, S)."""
    members, others = (each[:, ::-1] for each in _by_score(scored, weights))
    with np.errstate(invalid="ignore"):
        false = np.cumsum(others, axis=1) / others.sum(1, keepdims=True)
        found = np.cumsum(members, axis=1) / members.sum(1, keepdims=True)
    return np.where(np.isnan(false[:, -1] + found[:, -1]), np.nan, np.where(false <= rate, found, 0.0).max(axis=1))


def exposure(rank: float, number: int) -> float:
    """Return log2 of the number of candidates, less log2 of a rank among them, which is 1 for the most likely.

    Carlini et al. (USENIX Security 2019, arXiv 1802.08232), equation 2. It is largest, log2 of the number, for rank 1.
    """
    return float(np.log2(number) - np.log2(rank))


def _by_score(scored: Scored, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of members and of others at each distinct score, ascending: (W, U) each."""
    order = np.argsort(scored.scores, kind="stable")
    ordered, member = scored.scores[order], scored.members[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sorted_weights = weights[:, order]
    members = np.add.reduceat(sorted_weights * member, starts, axis=1)
    return members, np.add.reduceat(sorted_weights * ~member, starts, axis=1)


def _bootstrap(statistic: _Weighted, units: np.ndarray) -> Estimate:
    if not len(units):
        return Estimate(None, None, None, 0)
    names, of_sample = np.unique(units, return_inverse=True)
    value = float(statistic(np.ones((1, len(units))))[0])
    draws = generator("audit", "bootstrap").multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    values = statistic(draws[:, of_sample].astype(float))
    known = values[~np.isnan(values)]
    if np.isnan(value) or not len(known):
        return Estimate(None, None, None, len(units))
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(units))
