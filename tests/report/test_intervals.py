"""Standard errors and intervals on numbers small enough to do by hand; how often they cover is simulated elsewhere."""

import math

import numpy as np
import pytest

from pilot.report.numbers.intervals import bootstrap_clients, bootstrap_interval, standard_error
from pilot.report.numbers.statistics import Scores

SHARE = (0.0, 1.0)


def test_standard_error_of_one_level_is_the_textbook_one() -> None:
    # Three seeds 0, 1, 2: variance 1, standard error 1 / sqrt(3), two degrees of freedom; so for clients and images.
    for shape in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
        error, freedom = standard_error(np.arange(3.0).reshape(shape))
        assert (error, freedom) == pytest.approx((1 / math.sqrt(3), 2.0))


def test_standard_error_of_two_levels_adds_them() -> None:
    # Seeds add 0 or 2, clients 0 or 4: squares of deviations over n (n - 1) are 2/2 = 1 and 8/2 = 4, nothing is left
    # for their interaction. Variance 5, degrees of freedom 25 / (1/1 + 16/1).
    error, freedom = standard_error(np.array([[0.0, 4.0], [2.0, 6.0]])[..., None])
    assert (error, freedom) == pytest.approx((math.sqrt(5), 25 / 17))


def test_standard_error_counts_an_interaction_once() -> None:
    # Seeds: means .5, 2.5, so 2/2 = 1; clients: means 1, 2, so .5/2 = .25; left over are +-.5 in all four cells:
    # 1 / (2 * 2) = .25. Each level's share holds the interaction, so the variance is 1 + .25 - .25.
    error, _ = standard_error(np.array([[0.5, 0.5], [1.5, 3.5]])[..., None])
    assert error == pytest.approx(1.0)


def test_standard_error_is_at_least_that_of_one_level() -> None:
    # Seeds: means 0, 1, so .5/2 = .25; clients equal; left over are +-1: 4 / 4 = 1. The difference would be negative.
    error, _ = standard_error(np.array([[-1.0, 1.0], [2.0, 0.0]])[..., None])
    assert error == pytest.approx(0.5)


def test_three_seeds_are_stretched_to_students_quantile() -> None:
    # Means of three draws from 0, 1, 2: standard deviation sqrt(2) / 3, and 0 and 2 have 1/27 each, so they are the
    # percentiles. Stretch: t(.975, 2) / sqrt(3) over 1.96 * sqrt(2) / 3 = 4.3027 * .57735 / .92393 = 2.6886.
    interval = bootstrap_clients(np.array([[0.0], [1.0], [2.0]]), num_replicates=20_000)
    assert interval == pytest.approx((1 - 2.689, 1 + 2.689), abs=0.03)
    assert bootstrap_clients(np.array([[0.0], [1.0], [2.0]]), bounds=(0.0, 10.0)) == pytest.approx((0.0, 3.7), abs=0.1)


def test_a_client_is_the_same_in_every_seed() -> None:
    # Clients 0 and 1 whatever the seed: as uncertain as two clients of one seed, not as six.
    one, many = bootstrap_clients(np.array([[0.0, 1.0]])), bootstrap_clients(np.array([[0.0, 1.0]] * 3))
    assert one is not None and many == pytest.approx(one, rel=0.05)


def test_no_interval_where_nothing_differs() -> None:
    right = dict.fromkeys("abc", 0.1)
    assert bootstrap_interval(Scores.build([{0: right, 1: right}], {})) is None
    assert bootstrap_interval(Scores.build([{0: {"a": 0.5}}], {})) is None
    assert bootstrap_clients(np.full((1, 3), 0.4)) is None


def test_copies_of_one_model_do_not_narrow_the_interval() -> None:
    answers = {str(i): float(i % 2) for i in range(50)}
    one = bootstrap_interval(Scores.build([{0: answers}], {}))
    three = bootstrap_interval(Scores.build([{0: answers, 1: answers, 2: answers}], {}))
    # Fair coin over 50 images: standard error sqrt(.25 / 49) = .0714, t(.975, 49) = 2.0096: 0.5 +- .1435.
    assert one == pytest.approx((0.3565, 0.6435), abs=0.02)
    assert three == pytest.approx(one, abs=0.02)


def test_images_and_not_examples_are_resampled() -> None:
    # 50 examples of 2 images, all right on one and all wrong on the other: as uncertain as two coin tosses.
    answers = {str(i): float(i % 2) for i in range(50)}
    images = {str(i): "xy"[i % 2] for i in range(50)}
    scores = Scores.build([{0: answers}], images)
    assert bootstrap_interval(scores, bounds=SHARE) == SHARE
    # Replicates 0, 1/2, 1 (1/4, 1/2, 1/4): percentiles 0 and 1, standard deviation sqrt(1/8). Standard error 1/2, one
    # degree of freedom: stretch 12.706 / 2 over 1.96 * .35355 = 9.168, half a unit of it on either side.
    assert bootstrap_interval(scores, num_replicates=20_000) == pytest.approx((-4.084, 5.084), abs=0.1)


def test_clients_with_their_own_test_parts_weigh_the_same() -> None:
    small, large = {"a": 1.0}, {str(i): 0.0 for i in range(9)}
    scores = Scores.build([{0: small, 1: large}], {})
    assert scores.client_means().tolist() == [[1.0, 0.0]]
    # Two clients, 1 and 0: nothing within them varies, t(.975, 1) = 12.7 standard errors of 1/2 on either side.
    assert bootstrap_interval(scores, bounds=SHARE) == SHARE


def test_images_of_one_client_alone_are_not_counted_twice() -> None:
    # Two clients with two images of their own each, right and wrong. As pseudo-values over four images, each client's
    # are .5 +- 1 on its own and .5 on the other's. Image means are 0, 1, 0, 1: 4 * .25 / (4 * 3) = 1/12; left over are
    # +-.5 in eight cells: 8 * .25 / (2 * 12) = 1/12 again. Clients have equal means, so the images' own share counts.
    values = np.array([[[-0.5, 1.5, 0.5, 0.5], [0.5, 0.5, -0.5, 1.5]]])
    assert standard_error(values)[0] == pytest.approx(math.sqrt(1 / 12))
    own = [{f"{client}{i}": float(i) for i in range(2)} for client in range(2)]
    interval = bootstrap_interval(Scores.build([dict(enumerate(own))], {}), num_replicates=20_000)
    assert interval is not None and interval[1] - 0.5 == pytest.approx(0.5 - interval[0], rel=0.05)


def test_interval_is_a_function_of_its_seed() -> None:
    scores = Scores.build([{0: {str(i): float(i % 3) for i in range(20)}} for _ in range(3)], {})
    assert bootstrap_interval(scores, seed=1) == bootstrap_interval(scores, seed=1)
    assert bootstrap_interval(scores, seed=1) != bootstrap_interval(scores, seed=2)
