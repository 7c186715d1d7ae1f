"""Intervals of a mean over seeds, clients and images: a hierarchical bootstrap, widened for few seeds and clients.

Data model and estimand. A score belongs to a seed, a client and an image, each drawn at random from a population; the
same clients answer in every seed, and all of them answer on the same images (crossed random effects). The interval
is for the mean over these populations of seeds, clients and images. The spread of a level with one member cannot be
estimated: with one seed, the interval is for that seed's models. If one model serves all clients, the clients do not
differ, and the level adds nothing.

1. Each replicate draws seeds, clients and images with replacement, each level once and independently of the other two
   (Owen 2007, the pigeonhole bootstrap). Drawing new clients for each seed would treat a hard shard as hard in one
   seed only.
2. Percentiles of such replicates are too narrow with three seeds and clients: n values resampled from themselves have
   (n - 1) / n of the variance, and a spread estimated from n values needs Student's quantile. The replicates are
   therefore stretched about the mean until 1.96 of their standard deviations are t standard errors, as the expanded
   percentile interval does for one sample (Hesterberg 2015). The squared standard error is the unbiased estimate
   from the mean squares of the crossed layout (seeds + clients + images - pairs + all three, since each level's
   spread contains that of its interactions), but at least that of any level alone; its degrees of freedom are
   Satterthwaite's (1946).

Simulated in `tests/report/test_coverage.py`: with 3 seeds, 3 clients and 300 images the nominal 95 % are 94 to 95 %
if seeds and clients differ by standard deviations of 0.015 to 0.03; at worst 92 %, if three seeds (or clients)
outweigh the images two to one; 97 to 99 % if models err independently of each other, and if each client has
different images (local protocol). Plain percentiles gave 84 to 90 % if seeds or clients outweigh the images.

- Hesterberg, What teachers should know about the bootstrap, The American Statistician 69(4), 2015.
- Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007.
- Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bulletin 2(6), 1946.
"""

import math
from collections.abc import Sequence
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
    seed: int = 0,
) -> tuple[float, float] | None:
    """Compute the 95 % interval of the mean over seeds, clients and images (see the module).

    Args:
        scores: per-example scores of one method on one task.
        bounds: the metric's smallest and largest possible value; the ends are clipped to them.
        num_replicates: number of bootstrap samples.
        seed: of the generator; the same seed draws the same samples for every method.

    Returns:
        Lower and upper end, in the metric's unit; None if all scores are equal, since they have no spread to
        estimate.
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
    return _stretched(replicates_R, float(scores.client_means().mean()), error, freedom, bounds)


def bootstrap_clients(
    values_SC: Floats, *, bounds: tuple[float, float] = UNBOUNDED, num_replicates: int = NUM_REPLICATES
) -> tuple[float, float] | None:
    """Compute the 95 % interval over seeds and clients only, for metrics without per-example values (BLEU).

    Arguments and result are as for `bootstrap_interval`, except `values_SC`: the metric by seed and client.
    """
    error, freedom = standard_error(values_SC[..., None])
    means_RSC = np.broadcast_to(values_SC, (num_replicates, *values_SC.shape))
    replicates_R = _over_seeds_and_clients(means_RSC, np.random.default_rng(0))
    return _stretched(replicates_R, float(values_SC.mean()), error, freedom, bounds)


def combined_interval(parts: Sequence[tuple[float, Scores | Floats]], totals_S: Floats) -> tuple[float, float] | None:
    """Compute the 95 % interval of a weighted sum of the means of several tasks, whose clients and images differ.

    The squared standard errors of the tasks' means (see the module) add up, and so do their degrees of freedom by
    Satterthwaite's formula; the result is at least the standard error of the sum over seeds, which all tasks share.

    Args:
        parts: weight of each task's mean, and its scores, or its values by seed and client if it has none by example.
        totals_S: the sum in each seed.

    Returns:
        Lower and upper end; None if nothing varies.
    """
    errors = [
        (weight, standard_error(_pseudo_values(part) if isinstance(part, Scores) else part[..., None]))
        for weight, part in parts
    ]
    terms = [((weight * error) ** 2, freedom) for weight, (error, freedom) in errors if error > 0]
    variance = sum(term for term, _ in terms)
    freedom = variance**2 / sum(term**2 / own for term, own in terms) if terms else 0.0
    if len(totals_S) > 1 and (over_seeds := float(totals_S.var(ddof=1)) / len(totals_S)) > variance:
        variance, freedom = over_seeds, len(totals_S) - 1
    if math.sqrt(variance) < _ROUNDING:
        return None
    half, center = float(stdtrit(freedom, 1 - LEVEL / 2)) * math.sqrt(variance), float(totals_S.mean())
    return center - half, center + half


def standard_error(values_SCK: Floats) -> tuple[float, float]:
    """Estimate the standard error of the mean of a crossed layout and its degrees of freedom (both 0 for one value).

    For a set of levels, the sum of squares of their interaction's deviations over the product of n (n - 1) estimates
    what that interaction and all larger ones add to the variance of the mean; the alternating signs count each effect
    once.

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
    """Estimate what one interaction (or level) adds to the mean's variance; return it with its degrees of freedom."""
    effects, pairs, freedom = values_SCK, 1, 1
    for axis, size in enumerate(values_SCK.shape):
        means = effects.mean(axis=axis, keepdims=True)
        effects = effects - means if axis in chosen else means
        if axis in chosen:
            pairs, freedom = pairs * size * (size - 1), freedom * (size - 1)
    return float((effects**2).sum()) / pairs, freedom


def _pseudo_values(scores: Scores) -> Floats:
    """Add each image's influence to the client means, shape (S, C, K): a complete layout with the same means.

    If every client answers one question about each image, these are the scores. If clients have separate test parts,
    an image has no influence on the other clients.
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
    """Draw images with replacement; return how often each example is drawn, shape (R, I).

    Images are drawn within strata of examples that the same clients answer: one stratum if clients share a test set,
    one per client if they have separate ones. So the number of a client's examples does not change.
    """
    weights = np.zeros((num, len(images_I)))
    _, strata = np.unique(present_CI, axis=1, return_inverse=True)
    for stratum in range(strata.max() + 1):
        members = np.flatnonzero(strata == stratum)
        local = np.unique(images_I[members], return_inverse=True)[1]
        weights[:, members] = _counts(int(local.max()) + 1, num, generator)[:, local]
    return weights


def _counts(size: int, num: int, generator: np.random.Generator) -> Integers:
    """Draw `size` members with replacement; return how often each is drawn, shape (R, size)."""
    drawn = generator.integers(0, size, (num, size)) + size * np.arange(num)[:, None]
    return np.bincount(drawn.ravel(), minlength=num * size).reshape(num, size)


def _over_seeds_and_clients(means_RSC: Floats, generator: np.random.Generator) -> Floats:
    """Draw seeds and clients for each replicate and average over them, shape (R,)."""
    num, S, C = means_RSC.shape
    shares_RS, shares_RC = _counts(S, num, generator) / S, _counts(C, num, generator) / C
    return ((means_RSC * shares_RC[:, None, :]).sum(axis=2) * shares_RS).sum(axis=1)


def _stretched(
    replicates_R: Floats, center: float, error: float, freedom: float, bounds: tuple[float, float]
) -> tuple[float, float] | None:
    """Take percentiles of the replicates, stretched about `center` until their spread is t standard errors."""
    if min(error, float(replicates_R.std())) < _ROUNDING:
        return None
    quantiles = float(stdtrit(freedom, 1 - LEVEL / 2)) / float(ndtri(1 - LEVEL / 2))
    stretch = quantiles * error / float(replicates_R.std())
    low, high = (center + stretch * (np.quantile(replicates_R, [LEVEL / 2, 1 - LEVEL / 2]) - center)).tolist()
    return max(bounds[0], low), min(bounds[1], high)
