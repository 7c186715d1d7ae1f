"""Intervals of a mean over seeds, clients and images: a hierarchical bootstrap, widened for few seeds and clients.

Data model and truth. A score belongs to a seed, a client and an image, each drawn at random from many like it; the
same clients answer in every seed, and the same images are put to all of them (crossed random effects). The interval
is for the mean over all seeds, clients and images that might have been drawn. A level with one member only has no
spread that could be estimated: with one seed, the interval is for that seed's models; where one model serves all
clients they do not differ, and the level adds nothing.

1. Each replicate draws seeds, clients and images with replacement, every level once for the two others (Owen 2007,
   the pigeonhole bootstrap). Drawing clients anew in each seed would treat a hard shard as hard in one seed only.
2. Percentiles of such replicates are too narrow with three seeds and clients: n values redrawn from themselves vary
   (n - 1) / n as much as they should, and a spread known from n values needs Student's quantile. The replicates are
   therefore stretched about the mean until 1.96 of their standard deviations are t standard errors, as the expanded
   percentile interval does for one sample (Hesterberg 2015). The squared standard error is the unbiased estimate
   from the mean squares of the crossed layout (seeds + clients + images - pairs + all three, since each level's
   spread contains that of its interactions), but at least that of any level alone; its degrees of freedom are
   Satterthwaite's (1946).

Simulated in `tests/report/test_coverage.py`: with 3 seeds, 3 clients and 300 images the nominal 95 % are 94 to 95 %
where seeds and clients differ by standard deviations of 0.015 to 0.03; at worst 92 %, where three seeds (or clients)
outweigh the images two to one; 97 to 99 % where models err independently of each other, and where each client has
images of its own (local protocol). Plain percentiles gave 84 to 90 % where seeds or clients outweigh the images.

- Hesterberg, What teachers should know about the bootstrap, The American Statistician 69(4), 2015.
- Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007.
- Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bulletin 2(6), 1946.
"""

import math
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from pilot.report.numbers.statistics import LEVEL, Floats, Integers, Scores

NUM_REPLICATES = 1_000
_ROUNDING = 1e-12
UNBOUNDED = (-math.inf, math.inf)


def bootstrap_interval(
    scores: Scores,
    *,
    bounds: tuple[float, float] = UNBOUNDED,
    num_replicates: int = NUM_REPLICATES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Interval of the mean over seeds, clients and images (see the module).

    Args:
        scores: per-example scores of one method on one task.
        bounds: the metric's smallest and largest possible value; the ends stay within.
        num_replicates: bootstrap samples.
        level: 0.05 gives the 95 % interval.
        seed: of the generator; equal seeds draw equal samples, whatever the method.

    Returns:
        Lower and upper end, in the metric's unit; None where every score is the same (no interval of no width:
        nothing can be said then).
    """
    error, freedom = standard_error(_pseudo_values(scores))
    generator = np.random.default_rng(seed)
    S, C, num_examples = scores.values_SCI.shape
    present_CI = ~np.isnan(scores.values_SCI[0])
    weights_RI = _image_weights(present_CI, scores.images_I, num_replicates, generator)
    filled = np.nan_to_num(scores.values_SCI).reshape(S * C, num_examples)
    sums_RSC = (weights_RI @ filled.T).reshape(num_replicates, S, C)
    means_RSC = sums_RSC / (weights_RI @ present_CI.T.astype(float))[:, None, :]
    replicates_R = _over_seeds_and_clients(means_RSC, generator)
    return _stretched(replicates_R, float(scores.client_means().mean()), error, freedom, level, bounds)


def bootstrap_clients(
    values_SC: Floats,
    *,
    bounds: tuple[float, float] = UNBOUNDED,
    num_replicates: int = NUM_REPLICATES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float] | None:
    """As `bootstrap_interval`, over seeds and clients only: for metrics without per-example values (BLEU)."""
    error, freedom = standard_error(values_SC[..., None])
    means_RSC = np.broadcast_to(values_SC, (num_replicates, *values_SC.shape))
    replicates_R = _over_seeds_and_clients(means_RSC, np.random.default_rng(seed))
    return _stretched(replicates_R, float(values_SC.mean()), error, freedom, level, bounds)


def standard_error(values_SCK: Floats) -> tuple[float, float]:
    """Standard error of the mean of a crossed layout, and its degrees of freedom (both 0 for a single value).

    For a set of levels, the squares of their interaction's deviations over the product of n (n - 1) estimate what
    that interaction and all larger ones add to the variance of the mean; alternating signs leave each effect once.

    Args:
        values_SCK: one value per seed, client and image (or pseudo-values that average to the same means).
    """
    axes = [axis for axis in range(3) if values_SCK.shape[axis] > 1]
    variance, largest, squares = 0.0, 0.0, 0.0
    for size in range(1, len(axes) + 1):
        for chosen in combinations(axes, size):
            part, freedom = _variance_of(values_SCK, chosen)
            variance += part if size % 2 else -part
            largest = max(largest, part) if size == 1 else largest
            squares += part**2 / freedom
    variance = max(variance, largest)
    smallest = min((values_SCK.shape[axis] - 1 for axis in axes), default=0)
    return math.sqrt(variance), max(smallest, variance**2 / squares) if squares else float(smallest)


def _variance_of(values_SCK: Floats, chosen: tuple[int, ...]) -> tuple[float, int]:
    """Share of the mean's variance that one interaction (or level) shows, and its degrees of freedom."""
    effects, pairs, freedom = values_SCK, 1, 1
    for axis, size in enumerate(values_SCK.shape):
        means = effects.mean(axis=axis, keepdims=True)
        effects = effects - means if axis in chosen else means
        if axis in chosen:
            pairs, freedom = pairs * size * (size - 1), freedom * (size - 1)
    return float((effects**2).sum()) / pairs, freedom


def _pseudo_values(scores: Scores) -> Floats:
    """Client means plus each image's influence on them, shape (S, C, K): a complete layout with the same means.

    Where every client answers one question about each image these are the scores; where clients have test parts of
    their own, an image has no influence on the other clients.
    """
    present_CI = ~np.isnan(scores.values_SCI[0])
    means_SC = scores.client_means()
    deviations = np.nan_to_num(scores.values_SCI - means_SC[..., None]) / present_CI.sum(axis=1)[:, None]
    order = np.argsort(scores.images_I, kind="stable")
    starts = np.flatnonzero(np.diff(scores.images_I[order], prepend=-1))
    return means_SC[..., None] + len(starts) * np.add.reduceat(deviations[..., order], starts, axis=2)


def _image_weights(
    present_CI: NDArray[np.bool_], images_I: Integers, num: int, generator: np.random.Generator
) -> Floats:
    """How often each example is drawn, shape (R, I).

    Images are drawn within strata of examples that the same clients answer: one stratum when clients share a
    test set, one per client when each has its own; so a client's share never changes size.
    """
    weights = np.zeros((num, len(images_I)))
    _, strata = np.unique(present_CI, axis=1, return_inverse=True)
    for stratum in range(strata.max() + 1):
        members = np.flatnonzero(strata == stratum)
        local = np.unique(images_I[members], return_inverse=True)[1]
        weights[:, members] = _counts(int(local.max()) + 1, num, generator)[:, local]
    return weights


def _counts(size: int, num: int, generator: np.random.Generator) -> Integers:
    """How often each of `size` members is among `size` draws with replacement, shape (R, size)."""
    drawn = generator.integers(0, size, (num, size)) + size * np.arange(num)[:, None]
    return np.bincount(drawn.ravel(), minlength=num * size).reshape(num, size)


def _over_seeds_and_clients(means_RSC: Floats, generator: np.random.Generator) -> Floats:
    """Mean of each replicate over its own draw of seeds and its own draw of clients, shape (R,)."""
    num, S, C = means_RSC.shape
    shares_RS, shares_RC = _counts(S, num, generator) / S, _counts(C, num, generator) / C
    return ((means_RSC * shares_RC[:, None, :]).sum(axis=2) * shares_RS).sum(axis=1)


def _stretched(
    replicates_R: Floats, center: float, error: float, freedom: float, level: float, bounds: tuple[float, float]
) -> tuple[float, float] | None:
    """Percentiles of the replicates, stretched about `center` to Student's quantile of standard errors."""
    if min(error, float(replicates_R.std())) < _ROUNDING:
        return None
    quantiles = float(stdtrit(freedom, 1 - level / 2)) / float(ndtri(1 - level / 2))
    stretch = quantiles * error / float(replicates_R.std())
    low, high = (center + stretch * (np.quantile(replicates_R, [level / 2, 1 - level / 2]) - center)).tolist()
    return max(bounds[0], low), min(bounds[1], high)
