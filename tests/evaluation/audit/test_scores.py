"""Measures of attacks, by hand."""

import numpy as np
import pytest

from pilot.evaluation.audit.attacks.losses import rank_answers
from pilot.evaluation.audit.scores import Scored, area, exposure, hits_at_few_false, mean


def scored(scores: list[float], members: list[int], images: list[str] | None = None) -> Scored:
    names = images or [f"image {place}" for place in range(len(scores))]
    return Scored(np.array(scores, dtype=float), np.array(members, dtype=bool), np.array(names))


def test_area() -> None:
    """Members 3, 1; others 2, 0: of four pairs, 3 > 2, 3 > 0 and 1 > 0 are right."""
    assert area(scored([3, 1, 2, 0], [1, 1, 0, 0])).value == pytest.approx(3 / 4)
    assert area(scored([1, 1, 1], [1, 0, 0])).value == pytest.approx(1 / 2), "ties count half"
    assert area(scored([1, 2], [1, 1])).value is None, "without others there is no area"


def test_hits_at_few_false() -> None:
    """Of two others, one false positive is a rate of 1/2: below that, only scores above both count."""
    found = scored([4, 2, 0, 3, 1], [1, 1, 1, 0, 0])
    assert hits_at_few_false(found, 0.4).value == pytest.approx(1 / 3)
    assert hits_at_few_false(found, 0.5).value == pytest.approx(2 / 3)
    assert hits_at_few_false(scored([1, 1], [1, 0])).value == 0, "a tie cannot be cut"


def test_exposure() -> None:
    """Eight candidates: the best has log2 8 - log2 1 = 3 bits, the fourth 3 - 2 = 1, the last none."""
    assert [exposure(rank, 8) for rank in (1, 4, 8)] == [3, 1, 0]
    assert exposure(rank_answers([1.0, 1.0, 1.0])[0], 3) == pytest.approx(np.log2(3) - 1), "rank 2 of three equals"


def test_an_image_is_drawn_as_a_whole() -> None:
    """Ten copies of one image are one sample: the interval is that of two images, not of eleven."""
    copies = mean([1.0] * 10 + [0.0], ["a"] * 10 + ["b"])
    assert (copies.low, copies.high) == (0, 1) and copies.count == 11
    apart = mean([1.0] * 10 + [0.0], [str(place) for place in range(11)])
    assert apart.low is not None and apart.low > 0.5


def test_an_interval_holds_chance_for_random_scores() -> None:
    source = np.random.default_rng(0)
    found = area(scored(source.random(400).tolist(), [1, 0] * 200))
    assert found.low is not None and found.high is not None and found.low < 0.5 < found.high
    assert found.high - found.low < 0.15
