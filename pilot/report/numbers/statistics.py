"""Scores per example, the paired test of two methods, and the correction for multiple tests.

Pure functions of arrays and a seed; intervals are in `pilot.report.numbers.intervals`. The unit of resampling is the
image, not the answer: clients of one task share the test set, and a single-model method repeats one answer for every
client, so answers to one image are not independent samples.

- Test: paired permutation (Fisher's randomisation test; Good 2005; for NLP metrics Dror et al. 2018): scores
  are averaged over seeds and clients, and the sign of each image's difference is flipped. It tests whether the
  trained models differ on images like these, with 5 % false positives. It does not test whether other seeds would
  differ: for two equal methods whose seeds vary by 0.015 (standard deviation, 3 seeds, 300 images) it finds a
  difference in about a fifth of all cases, because their trained models do differ. The spread over seeds is in the
  standard deviation and in the interval; `pilot.report.numbers.retraining` asks for other seeds. Simulated in
  `tests/report/test_coverage.py`.
- Multiple tests: Holm 1979.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NUM_PERMUTATIONS = 10_000
LEVEL = 0.05
ROUNDING = 5e-7
"""Largest difference between equal scores: files have six decimals."""
_EXACT_UP_TO = 12


@dataclass(frozen=True)
class Scores:
    """Per-example scores of one method on one task.

    Attributes:
        values_SCI: score by seed, client and example; NaN where a client does not answer an example.
        ids: the example ids, aligned with the last axis.
        images_I: image number of each example; examples of one image are drawn together.
    """

    values_SCI: Floats
    ids: tuple[str, ...]
    images_I: Integers

    @staticmethod
    def build(seeds: Sequence[Mapping[int, Mapping[str, float]]], images: Mapping[str, str]) -> "Scores":
        """Build scores from one mapping client -> id -> value per seed.

        Args:
            seeds: the mapping of each seed.
            images: example id -> image; an example without an entry is an image by itself.

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
        """Average the scores over examples, by seed and client, shape (S, C)."""
        return np.nanmean(self.values_SCI, axis=2)

    def by_seed(self, ids: Sequence[str]) -> Floats:
        """Average the scores of each of `ids` over the clients that answer it, by seed, shape (S, I)."""
        place = {id: number for number, id in enumerate(self.ids)}
        return np.nanmean(self.values_SCI[:, :, [place[id] for id in ids]], axis=1)

    def by_id(self) -> dict[str, float]:
        """Average the scores of each example over seeds and the clients that answer it."""
        means = np.nanmean(self.values_SCI, axis=(0, 1))
        return dict(zip(self.ids, means.tolist(), strict=True))


def paired_permutation(
    scores: Mapping[str, float],
    baseline: Mapping[str, float],
    images: Mapping[str, str],
    *,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> tuple[float, float, int] | None:
    """Test the mean difference with a two-sided paired permutation test, flipping signs per image.

    Up to 12 images, all 2^n sign patterns are counted; above, p = (1 + hits) / (1 + permutations), which is
    never 0 (Phipson & Smyth 2010).

    Args:
        scores: example id -> score, averaged over seeds and clients (`Scores.by_id`).
        baseline: scores of the baseline; examples that only one side answers are left out.
        images: example id -> image; an example without an entry is an image by itself.
        num_permutations: number of random sign patterns for more than 12 images.
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
    """Adjust p-values by Holm's step-down procedure, in the order given (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
