"""Intervals and tests over per-example scores. Pure functions of arrays and a seed.

The unit of resampling is the image, not the answer: clients of one task share the test set, and a
single-model method repeats one answer for every client, so answers to one image are not independent samples.
Images are therefore drawn jointly for all seeds and clients, and paired jointly between two methods.

- Interval: hierarchical percentile bootstrap (Efron & Tibshirani 1993, chapters 8 and 13; several levels:
  Saravanan, Berman & Sober 2020): draw seeds, then clients within each drawn seed, and images once for all
  of them. With three seeds the seed level is coarse; the interval is then mostly that of images and clients.
- Test: paired permutation (Fisher's randomisation test; Good 2005; for NLP metrics Dror et al. 2018): scores
  are averaged over seeds and clients, and the sign of each image's difference is flipped. It asks whether the
  models that were trained differ on images like these; the spread over seeds is in the standard deviation.
- Several tests: Holm 1979.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NUM_REPLICATES = 1_000
NUM_PERMUTATIONS = 10_000
LEVEL = 0.05
_EXACT_UP_TO = 12


@dataclass(frozen=True)
class Scores:
    """Per-example scores of one method on one task.

    Attributes:
        values_SCI: score by seed, client and example; NaN where a client does not answer an example.
        ids: the example ids, aligned with the last axis.
        images_I: number of the image behind each example; examples of one image are drawn together.
    """

    values_SCI: Floats
    ids: tuple[str, ...]
    images_I: Integers

    @staticmethod
    def build(seeds: Sequence[Mapping[int, Mapping[str, float]]], images: Mapping[str, str]) -> "Scores":
        """From one mapping client -> id -> value per seed; `images`: id -> image (default: its own).

        Raises:
            ValueError: the seeds do not answer the same examples.
        """
        clients = sorted({client for seed in seeds for client in seed})
        ids = sorted({id for seed in seeds for values in seed.values() for id in values})
        values = np.array([[[seed.get(c, {}).get(i, np.nan) for i in ids] for c in clients] for seed in seeds])
        values = values.reshape(len(seeds), len(clients), len(ids))
        if (np.isnan(values) != np.isnan(values[:1])).any():
            raise ValueError("the seeds of one method do not answer the same examples")
        names = [images.get(id, id) for id in ids]
        return Scores(values, tuple(ids), np.unique(names, return_inverse=True)[1].astype(np.int64))

    def client_means(self) -> Floats:
        """Mean score by seed and client, shape (S, C)."""
        return np.nanmean(self.values_SCI, axis=2)

    def by_id(self) -> dict[str, float]:
        """Score per example, averaged over seeds and the clients that answer it."""
        means = np.nanmean(self.values_SCI, axis=(0, 1))
        return dict(zip(self.ids, means.tolist(), strict=True))


def bootstrap_interval(
    scores: Scores, *, num_replicates: int = NUM_REPLICATES, level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over clients, by the hierarchical bootstrap (seed, client, image).

    Args:
        scores: per-example scores of one method on one task.
        num_replicates: bootstrap samples.
        level: 0.05 gives the 95 % interval.
        seed: of the generator; equal seeds draw equal samples, whatever the method.

    Returns:
        Lower and upper end, in the metric's unit.
    """
    generator = np.random.default_rng(seed)
    S, C, num_examples = scores.values_SCI.shape
    present_CI = ~np.isnan(scores.values_SCI[0])
    weights_RI = _image_weights(present_CI, scores.images_I, num_replicates, generator)
    filled = np.nan_to_num(scores.values_SCI).reshape(S * C, num_examples)
    sums_RSC = (weights_RI @ filled.T).reshape(num_replicates, S, C)
    means_RSC = sums_RSC / (weights_RI @ present_CI.T.astype(float))[:, None, :]
    draws_RSC = _seed_and_client_weights(S, C, num_replicates, generator)
    return _percentiles((means_RSC * draws_RSC).sum(axis=(1, 2)), level)


def bootstrap_clients(
    values_SC: Floats, *, num_replicates: int = NUM_REPLICATES, level: float = LEVEL, seed: int = 0
) -> tuple[float, float] | None:
    """As `bootstrap_interval`, over seeds and clients only: for metrics without per-example values (BLEU).

    Returns:
        None where every value is the same (one model and one seed): nothing can be said then.
    """
    if np.ptp(values_SC) == 0.0:
        return None
    S, C = values_SC.shape
    draws_RSC = _seed_and_client_weights(S, C, num_replicates, np.random.default_rng(seed))
    return _percentiles((values_SC * draws_RSC).sum(axis=(1, 2)), level)


def paired_permutation(
    scores: Mapping[str, float],
    baseline: Mapping[str, float],
    images: Mapping[str, str],
    *,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> tuple[float, float, int] | None:
    """Two-sided paired permutation test of the mean difference, flipping signs per image.

    Up to 12 images all 2^n sign patterns are counted; above, p = (1 + hits) / (1 + permutations), which is
    never 0 (Phipson & Smyth 2010).

    Args:
        scores: example id -> score, averaged over seeds and clients (`Scores.by_id`).
        baseline: the same of the baseline; examples that only one side answers are left out.
        images: example id -> image; an id that is not there is an image of its own.
        num_permutations: random sign patterns above 12 images.
        seed: of the generator.

    Returns:
        Mean difference (scores - baseline), p-value, number of images; None without a common example.
    """
    ids = sorted(scores.keys() & baseline.keys())
    if not ids:
        return None
    names = np.unique([images.get(id, id) for id in ids], return_inverse=True)[1]
    differences = np.array([scores[id] - baseline[id] for id in ids])
    per_image = np.bincount(names, weights=differences) / len(ids)
    observed, num_images = float(per_image.sum()), len(per_image)
    threshold = abs(observed) - 1e-12
    if num_images <= _EXACT_UP_TO:
        patterns = (np.arange(2**num_images)[:, None] >> np.arange(num_images)) & 1
        return observed, float((np.abs((1 - 2 * patterns) @ per_image) >= threshold).mean()), num_images
    flips = np.random.default_rng(seed).integers(0, 2, (num_permutations, num_images), dtype=np.int8)
    hits = int((np.abs((1.0 - 2.0 * flips) @ per_image) >= threshold).sum())
    return observed, (1 + hits) / (1 + num_permutations), num_images


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


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
        count = int(local.max()) + 1
        drawn = generator.integers(0, count, (num, count)) + count * np.arange(num)[:, None]
        weights[:, members] = np.bincount(drawn.ravel(), minlength=num * count).reshape(num, count)[:, local]
    return weights


def _seed_and_client_weights(S: int, C: int, num: int, generator: np.random.Generator) -> Floats:
    """Weight of each (seed, client) in each replicate, shape (R, S, C), summing to 1 over S and C."""
    seeds = generator.integers(0, S, (num, S, 1))
    clients = generator.integers(0, C, (num, S, C))
    cells = np.arange(num)[:, None, None] * (S * C) + seeds * C + clients
    return np.bincount(cells.ravel(), minlength=num * S * C).reshape(num, S, C) / (S * C)


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [level / 2, 1 - level / 2])
    return float(low), float(high)
