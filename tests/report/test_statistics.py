"""Statistics on numbers small enough to do by hand."""

import pytest

from pilot.report.numbers.statistics import Scores, holm, paired_permutation


def test_holm_is_the_textbook_example() -> None:
    # Sorted: .01*4 = .04, .02*3 = .06, .03*2 = .06, .04*1 = .04 -> raised to .06 by the running maximum.
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])


def test_holm_stops_at_one_and_takes_nothing() -> None:
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_permutation_counts_all_sign_patterns_of_few_images() -> None:
    # Differences 1, 1, 1: |mean| = 1 only for +++ and ---, 2 of 8 patterns.
    ones, zeros = dict.fromkeys("abc", 1.0), dict.fromkeys("abc", 0.0)
    assert paired_permutation(ones, zeros, {}) == (1.0, 0.25, 3)


def test_permutation_of_equal_scores_is_one() -> None:
    same = {"a": 0.5, "b": 1.0}
    assert paired_permutation(same, same, {}) == (0.0, 1.0, 2)


def test_permutation_flips_examples_of_one_image_together() -> None:
    # Four examples of two images: only two signs to flip, so p is 2 of 4, not 2 of 16.
    ones, zeros = dict.fromkeys("abcd", 1.0), dict.fromkeys("abcd", 0.0)
    images = {"a": "x", "b": "x", "c": "y", "d": "y"}
    assert paired_permutation(ones, zeros, images) == (1.0, 0.5, 2)


def test_permutation_of_many_images_is_never_zero_and_seeded() -> None:
    ones, zeros = {str(i): 1.0 for i in range(30)}, {str(i): 0.0 for i in range(30)}
    first = paired_permutation(ones, zeros, {}, num_permutations=999)
    assert first == (1.0, 1 / 1000, 30)
    assert first == paired_permutation(ones, zeros, {}, num_permutations=999)


def test_permutation_pairs_common_examples_only() -> None:
    assert paired_permutation({"a": 1.0, "b": 9.0}, {"a": 0.0, "c": 5.0}, {}) == (1.0, 1.0, 1)
    assert paired_permutation({"a": 1.0}, {"b": 1.0}, {}) is None


def test_seeds_with_other_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="same examples"):
        Scores.build([{0: {"a": 1.0}}, {0: {"b": 1.0}}], {})


def test_by_id_averages_over_seeds_and_clients() -> None:
    scores = Scores.build([{0: {"a": 1.0}, 1: {"a": 0.0}}, {0: {"a": 1.0}, 1: {"a": 1.0}}], {})
    assert scores.by_id() == {"a": 0.75}
