"""Intervals and test against a known truth: thousands of simulated benchmarks, half a minute of one core.

Data model: 3 seeds, 3 clients, 300 images. An answer is right with probability 1/2 plus a normal effect of its seed,
of its client, and of both together; what makes an image hard is shared by all models to a degree (`alike`, the
correlation of a normal latent variable below which the answer is right). The truth is 1/2 for every data set: the
mean over all seeds, clients and images. For a realistic benchmark, seeds and clients are taken to differ by standard
deviations of 0.015 to 0.03, beside 0.025 that the 300 images cause.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import ndtr

from pilot.report.numbers.intervals import bootstrap_interval, standard_error
from pilot.report.numbers.statistics import Floats, Scores, paired_permutation

from ..marks import few_of

NUM_SETS = 2_000
NUM_IMAGES = 300
IDS = tuple(f"{number:03d}" for number in range(NUM_IMAGES))
TRUTH = 0.5
COVERS = (0.92, 0.98)
REJECTS = (0.03, 0.07)


@dataclass(frozen=True)
class Benchmark:
    """Standard deviations of the effects on the probability of a right answer, and how alike models are."""

    seed: float = 0.0
    client: float = 0.0
    both: float = 0.0
    alike: float = 0.8
    seeds: int = 3
    clients: int = 3

    def draw(self, generator: np.random.Generator, methods: int = 1) -> Floats:
        """Right (1) and wrong (0) answers, shape (M, S, C, K): the methods share clients and images."""
        M, S, C, K = methods, self.seeds, self.clients, NUM_IMAGES
        normal = generator.standard_normal
        chance = TRUTH + self.seed * normal((M, S, 1, 1)) + self.client * normal((C, 1))
        chance = chance + self.both * normal((M, S, C, 1))
        latent = self.alike * normal(K) + np.sqrt(1 - self.alike**2) * normal((M, S, C, K))
        return (ndtr(latent) < chance).astype(float)


def share_within(benchmark: Benchmark, own_images: bool = False) -> float:
    """How many of the intervals hold the truth; fewer replicates than in tables, to draw more data sets.

    With `own_images`, each client answers a third of the images alone (the local protocol).
    """
    generator = np.random.default_rng(0)
    others_CK = np.arange(NUM_IMAGES) % benchmark.clients != np.arange(benchmark.clients)[:, None]
    found = []
    for number in range(NUM_SETS):
        values = benchmark.draw(generator)[0]
        values = np.where(others_CK, np.nan, values) if own_images else values
        scores = Scores(values, IDS, np.arange(NUM_IMAGES))
        found.append(bootstrap_interval(scores, num_replicates=200, seed=number))
    return float(np.mean([ends is not None and ends[0] <= TRUTH <= ends[1] for ends in found]))


def share_rejected(benchmark: Benchmark, examples_of_image: int = 1, known: bool = True, shift: float = 0.0) -> float:
    """How many of the tests between two methods have p <= 0.05.

    Args:
        benchmark: what both methods are drawn from.
        examples_of_image: how often each image is asked about (with the same outcome).
        known: whether the test is told which examples share an image.
        shift: what is added to every score of the first method.
    """
    generator = np.random.default_rng(1)
    images = {f"{id}/{k}": id for id in IDS for k in range(examples_of_image)}
    rejected = []
    for number in range(NUM_SETS):
        first, second = benchmark.draw(generator, methods=2).mean(axis=(1, 2))
        pairs = [
            dict(zip(images, np.repeat(scores, examples_of_image), strict=True)) for scores in (first + shift, second)
        ]
        result = paired_permutation(*pairs, images if known else {}, num_permutations=499, seed=number)
        assert result is not None
        rejected.append(result[1] <= 0.05)
    return float(np.mean(rejected))


@pytest.mark.parametrize(
    "benchmark",
    [
        pytest.param(Benchmark(0.015, 0.02, 0.015), marks=pytest.mark.slow, id="realistic"),
        pytest.param(Benchmark(0.03, 0.03, 0.01), marks=pytest.mark.exhaustive, id="large spread"),
        pytest.param(Benchmark(0.015, clients=1), marks=pytest.mark.exhaustive, id="one model for all"),
        pytest.param(Benchmark(0.04), marks=pytest.mark.exhaustive, id="seeds weigh as much as images"),
        pytest.param(Benchmark(client=0.04), marks=pytest.mark.exhaustive, id="clients weigh as much as images"),
        pytest.param(
            Benchmark(0.015, 0.02, 0.015, seeds=5, clients=5), marks=pytest.mark.exhaustive, id="five seeds and clients"
        ),
    ],
)
def test_95_percent_intervals_cover_the_truth(benchmark: Benchmark) -> None:
    low, high = COVERS
    assert low <= share_within(benchmark) <= high


@pytest.mark.exhaustive
def test_at_worst_a_little_less_and_elsewhere_more() -> None:
    """Where the bounds are not met, or barely: what the module's docstring says of it.

    Least favourable is a level of three that outweighs the images two to one. Where models err independently, or
    differ at random in every seed and client, each level shows the same small spread, known from three members only;
    so it is where each client has images of its own, whose spread is then that of three clients, too.
    """
    assert share_within(Benchmark(0.08)) > 0.91
    assert share_within(Benchmark(both=0.06)) > 0.97
    assert share_within(Benchmark(alike=0.3)) > 0.97
    assert share_within(Benchmark(0.015, 0.02, 0.015), own_images=True) > 0.96


def test_the_simulation_tells_a_narrow_interval() -> None:
    """1.96 standard errors instead of Student's quantile miss the bounds by far."""
    generator = np.random.default_rng(0)
    inside = []
    for _ in range(NUM_SETS):
        values = Benchmark(0.08).draw(generator)[0]
        inside.append(abs(values.mean() - TRUTH) <= 1.96 * standard_error(values)[0])
    assert np.mean(inside) < COVERS[0] - 0.04


@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "examples_of_image"),
    [(Benchmark(client=0.02), 1), *few_of([], [(Benchmark(alike=0.3), 1), (Benchmark(client=0.02, clients=1), 2)])],
    ids=["clients differ", "models err independently", "two questions about an image"],
)
def test_equal_models_are_told_apart_in_5_percent(benchmark: Benchmark, examples_of_image: int) -> None:
    """Null hypothesis: two methods whose trained models are right equally often, on the same clients and images."""
    low, high = REJECTS
    assert low <= share_rejected(benchmark, examples_of_image) <= high


@pytest.mark.exhaustive
def test_the_simulation_tells_a_wrong_test() -> None:
    """Two questions about an image counted as two images; a true difference; models of unlike seeds.

    The last is no fault: the test is about the models that were trained. Two equal methods whose seeds differ are
    told apart more often than 5 % of the time, since their models do differ.
    """
    assert share_rejected(Benchmark(client=0.02, clients=1), 2, known=False) > 2 * REJECTS[1]
    assert share_rejected(Benchmark(client=0.02), shift=0.03) > 0.5
    assert 0.15 < share_rejected(Benchmark(seed=0.015)) < 0.4
