"""Test of two methods about training again: would the difference be there after training both with other seeds?

Each seed trains both methods anew on the same clients, and their models answer the same images. d_sk is the difference
of their scores for seed s and image k, averaged over the clients, d its mean over S seeds and K images. With the mean
squares of the crossed layout (`_components`), the squared standard error of d is

    V = V_S + V_K,    V_S: what another training changes,    V_K: what other images change in every training alike

and t = |d| / sqrt(V). V_S is known from few seeds, V_K from hundreds of images, so each part counts with its own
degrees of freedom and its share of V: p = (V_S P(|T_(S-1)| > t) + V_K P(|T_(K-1)| > t)) / V. Cochran and Cox weight
critical values in the same way. Simulated in `tests/report/test_retraining.py`: it tells equal methods apart in 3 to
7 % of all cases with 3, 5 and 10 seeds, wherever the variation lies; with Satterthwaite's degrees of freedom instead it
was up to 8 %, and with the standard error of `intervals`, which also takes the clients for a sample, 0.1 to 5 %.

Scores are counts, so the differences of two or three seeds can be equal by chance, which does not say that V_S is 0.
Its place is then taken by what varies between seeds within images (the mean square of both), which V_S contains.

The clients are those of the scenario, in every training. Whether a difference would be there with other clients is not
asked; the intervals in the tables are wider for that reason.

- Cochran and Cox, Experimental Designs, 2nd edition, 1957, section 4.14.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv, ndtr, stdtr, stdtrit

from pilot.report.numbers.statistics import LEVEL, ROUNDING, Floats, Integers

MIN_SEEDS = 2
POWER = 0.8
QUANTILES = 2_000
MANY = 1e6
"""Degrees of freedom that count as infinitely many."""
MAX_SEEDS = 1_000
"""Largest number of seeds that `seeds_needed` looks at."""


@dataclass(frozen=True)
class Retraining:
    """Result of the test.

    Attributes:
        difference: d.
        of_training: variance of the difference between one training and the next, S V_S.
        of_images: V_K.
        p_value: two-sided.
    """

    difference: float
    of_training: float
    of_images: float
    p_value: float
    num_seeds: int
    num_images: int

    @property
    def standard_error(self) -> float:
        """The square root of V."""
        return math.sqrt(self.of_training / self.num_seeds + self.of_images)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the true difference: d +- c sqrt(V), c weighted by the shares of V as the p-values are."""
        by_seed, error = self.of_training / self.num_seeds, self.standard_error
        if error == 0:
            return self.difference, self.difference
        parts = [(by_seed, self.num_seeds - 1), (self.of_images, self.num_images - 1)]
        critical = sum(part * float(stdtrit(freedom, 1 - LEVEL / 2)) for part, freedom in parts if part > 0) / error**2
        return self.difference - critical * error, self.difference + critical * error


def compare_trainings(differences_SI: Floats, images_I: Integers) -> Retraining | None:
    """Test a mean difference as the module says; None if it never varies, which leaves nothing to test with.

    Args:
        differences_SI: by seed and example.
        images_I: image number of each example; examples of one image are drawn together.

    Raises:
        ValueError: fewer than two seeds, of which no variation can be estimated.
    """
    num_seeds, num_examples = differences_SI.shape
    if num_seeds < MIN_SEEDS:
        raise ValueError(f"{num_seeds} seed: expected at least {MIN_SEEDS}, to see what another training changes")
    names = np.unique(images_I, return_inverse=True)[1]
    num_images = int(names.max()) + 1
    values_SK = np.stack([np.bincount(names, row, num_images) for row in differences_SI]) * num_images / num_examples
    mean, by_seed, by_image, both = _components(values_SK)
    if math.sqrt(by_seed) < ROUNDING:
        by_seed = both
    of_images = max(0.0, by_image - both)
    shares = [(by_seed, num_seeds - 1), (of_images, num_images - 1)]
    variance = by_seed + of_images
    if math.sqrt(variance) < ROUNDING:
        if abs(mean) >= ROUNDING:
            return None
        p_value = 1.0
    else:
        t = abs(mean) / math.sqrt(variance)
        p_value = sum(part * 2 * float(stdtr(freedom, -t)) for part, freedom in shares if part > 0) / variance
    return Retraining(mean, by_seed * num_seeds, of_images, min(1.0, p_value), num_seeds, num_images)


def _components(values_SK: Floats) -> tuple[float, float, float, float]:
    """Return the mean, and what seeds, images and both together add to its variance (mean squares over S, K, S K)."""
    num_seeds, num_images = values_SK.shape
    mean, seeds_S, images_K = values_SK.mean(), values_SK.mean(axis=1), values_SK.mean(axis=0)
    rest_SK = values_SK - seeds_S[:, None] - images_K + mean
    by_seed = ((seeds_S - mean) ** 2).sum() / (num_seeds * (num_seeds - 1))
    if num_images < MIN_SEEDS:
        return float(mean), float(by_seed), 0.0, 0.0
    by_image = ((images_K - mean) ** 2).sum() / (num_images * (num_images - 1))
    both = (rest_SK**2).sum() / (num_seeds * num_images * (num_seeds - 1) * (num_images - 1))
    return float(mean), float(by_seed), float(by_image), float(both)


def power_of(
    difference: float,
    of_training: float,
    of_images: float,
    num_seeds: int,
    level: float = LEVEL,
    num_images: float = MANY,
) -> float:
    """Compute how often a true difference is found with `num_seeds` seeds, from the parts of its variance.

    The critical value is the parts' own, weighted by their shares. The statistic is taken to be noncentral t with
    Satterthwaite's degrees of freedom f: normal with the shift d / sqrt(V), over the root of a chi-squared / f, for
    which `QUANTILES` equally likely values stand.
    """
    by_seed = of_training / num_seeds
    variance = by_seed + of_images
    if variance <= 0:
        return 1.0 if difference else 0.0
    parts = [(by_seed, num_seeds - 1), (of_images, num_images - 1)]
    critical = sum(part * float(stdtrit(freedom, 1 - level / 2)) for part, freedom in parts if part > 0) / variance
    freedom = min(MANY, variance**2 / sum(part**2 / freedom for part, freedom in parts if part > 0))
    shift = abs(difference) / math.sqrt(variance)
    chances_Q = (np.arange(QUANTILES) + 0.5) / QUANTILES
    limits_Q = critical * np.sqrt(gammaincinv(freedom / 2, chances_Q) * 2 / freedom)
    return float((ndtr(shift - limits_Q) + ndtr(-shift - limits_Q)).mean())


def seeds_needed(
    difference: float, of_training: float, of_images: float, level: float = LEVEL, num_images: float = MANY
) -> int | None:
    """Return the fewest seeds with which a difference is found in 80 % of cases; None if no number of seeds suffices.

    More seeds do not make the images more.
    """
    if power_of(difference, of_training, of_images, MAX_SEEDS, level, num_images) < POWER:
        return None
    below, enough = MIN_SEEDS - 1, MAX_SEEDS
    while enough - below > 1:
        middle = (below + enough) // 2
        if power_of(difference, of_training, of_images, middle, level, num_images) >= POWER:
            enough = middle
        else:
            below = middle
    return enough
