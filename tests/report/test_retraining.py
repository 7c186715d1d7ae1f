"""The test about training again, and how many seeds a difference needs: by hand, simulated, and on made-up runs.

Simulated answers are right below a probability that moves with the seed, with the seed and the client, and with what a
method finds hard in each image, whatever the seed (`own`). Equal methods have the same probability on average.
"""

import csv
import io
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr

from pilot.errors import UserError
from pilot.report.compare.power import show_power
from pilot.report.compare.side_by_side import compare
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.retraining import Retraining, compare_trainings, power_of, seeds_needed
from pilot.report.numbers.significance import DEFAULT_TEST, against_baseline, best_and_close, retrained
from pilot.report.numbers.statistics import Floats, Integers
from pilot.report.numbers.summary import Group, group_runs

from ..marks import few_of
from .synthetic import build_run, build_scenario

NUM_SETS, NUM_IMAGES = 1_500, 300
REJECTS = (0.03, 0.07)


def result_of(differences_SI: Floats, images_I: Integers) -> Retraining:
    found = compare_trainings(differences_SI, images_I)
    assert found is not None
    return found


@dataclass(frozen=True)
class Benchmark:
    """Standard deviations of what moves the probability of a right answer; how alike models see images."""

    seed: float = 0.0
    both: float = 0.0
    own: float = 0.0
    alike: float = 0.8
    clients: int = 1

    def differences(self, seeds: int, generator: np.random.Generator, shift: float = 0.0) -> Floats:
        """Differences (S, K) of two methods, the first better by `shift`; means over clients."""
        normal, M, S, C, K = generator.standard_normal, 2, seeds, self.clients, NUM_IMAGES
        chance = 0.5 + self.seed * normal((M, S, 1, 1)) + self.both * normal((M, S, C, 1))
        chance[0] += shift
        rest = math.sqrt(1 - self.alike**2 - self.own**2)
        hard = self.alike * normal(K) + self.own * normal((M, 1, 1, K)) + rest * normal((M, S, C, K))
        right = (ndtr(hard) < chance).astype(float).mean(axis=2)
        found: Floats = right[0] - right[1]
        return found

    def tests(self, seeds: int, number: int = NUM_SETS, shift: float = 0.0) -> list[Retraining]:
        """The test of many pairs of methods."""
        generator, images = np.random.default_rng(1), np.arange(NUM_IMAGES)
        return [result_of(self.differences(seeds, generator, shift), images) for _ in range(number)]


BENCHMARKS = {
    "mixed": Benchmark(0.03, 0.01, own=0.3, clients=3),
    "nothing varies but the images": Benchmark(),
    "seeds as much as images": Benchmark(0.03),
    "seeds more than images": Benchmark(0.08),
    "seeds and clients": Benchmark(0.015, 0.015, clients=3),
    "models err independently": Benchmark(0.015, alike=0.3),
    "methods find other images hard": Benchmark(own=0.5),
    "methods find other images hard, and seeds": Benchmark(0.08, own=0.3),
}


def share_rejected(tests: Sequence[Retraining]) -> float:
    return float(np.mean([test.p_value <= 0.05 for test in tests]))


def test_by_hand() -> None:
    """Two seeds (means 0.5 and 2.5) and two images (2 and 1), which add up: V_S = 1, V_K = 0.25, t = 1.5 / sqrt(1.25).

    With two of each, both parts have one degree of freedom, Cauchy's distribution: p = 1 - 2 atan(t) / pi.
    """
    test = result_of(np.array([[1.0, 0.0], [3.0, 2.0]]), np.arange(2))
    assert (test.difference, test.of_training, test.of_images) == (1.5, 2.0, 0.25)
    assert test.standard_error == pytest.approx(math.sqrt(1.25))
    assert test.p_value == pytest.approx(1 - 2 / math.pi * math.atan(1.5 / math.sqrt(1.25)))
    assert (test.num_seeds, test.num_images) == (2, 2)


def test_parts_count_with_their_own_degrees_of_freedom() -> None:
    """Seeds alone: t = 1 with one degree of freedom, p = 1/2. Images alone: 2.0015 standard errors, nearly normal."""
    seeds = np.repeat([[0.0], [2.0]], 4, axis=1)
    assert result_of(seeds, np.arange(4)).p_value == pytest.approx(0.5)
    images = np.repeat([[1.0, -1.0] * 500], 2, axis=0) + 0.0633
    assert result_of(images, np.arange(1000)).p_value == pytest.approx(0.0456, abs=0.001)  # 2.0015 standard errors


def test_examples_of_an_image_count_once() -> None:
    values = Benchmark(0.03).differences(3, np.random.default_rng(0))
    once = result_of(values, np.arange(NUM_IMAGES))
    twice = result_of(np.repeat(values, 2, axis=1), np.repeat(np.arange(NUM_IMAGES), 2))
    assert (twice.difference, twice.p_value) == (pytest.approx(once.difference), pytest.approx(once.p_value))
    assert once.num_images == twice.num_images == NUM_IMAGES


def test_without_variation() -> None:
    images = np.arange(5)
    assert result_of(np.zeros((3, 5)), images).p_value == 1.0
    assert compare_trainings(np.ones((3, 5)), images) is None, "a difference that never varies says nothing of others"
    assert result_of(np.array([[1.0], [2.0]]), np.zeros(1, int)).of_images == 0.0
    with pytest.raises(ValueError, match="1 seed: expected at least 2"):
        compare_trainings(np.ones((1, 5)), images)


def test_seeds_that_coincide_by_chance() -> None:
    """Two seeds differ by 1/2 each, on other images: V_S is not 0 but at least 1/4, what varies within images.

    Mean squares: seeds 0, images (1/2, 1/2) 0, both 1/4. t = (1/2) / (1/2) with one degree of freedom, p = 1/2.
    """
    test = result_of(np.array([[1.0, 0.0], [0.0, 1.0]]), np.arange(2))
    assert (test.difference, test.of_training, test.of_images) == (0.5, 0.5, 0.0)
    assert test.p_value == pytest.approx(0.5) and test.interval[0] < 0 < test.interval[1]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3])
def test_equal_methods_are_rarely_told_apart_at_a_strict_level(seeds: int) -> None:
    """As Holm's correction over 21 tests asks; seeds that coincide used to reject in 2 % (two seeds) of all cases."""
    tests = BENCHMARKS["nothing varies but the images"].tests(seeds)
    assert np.mean([test.p_value <= 0.05 / 21 for test in tests]) <= 0.005


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("name", few_of(["mixed"], BENCHMARKS))
def test_equal_methods_are_told_apart_in_5_percent(name: str, seeds: int) -> None:
    low, high = REJECTS
    assert low <= share_rejected(BENCHMARKS[name].tests(seeds)) <= high


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, *few_of([], [5, 10])])
def test_power_is_what_is_predicted(seeds: int) -> None:
    """From the mean parts of the variance; a difference of 0.05."""
    benchmark = Benchmark(0.02, own=0.2)
    null, shifted = benchmark.tests(seeds, 500), benchmark.tests(seeds, 1_000, 0.05)
    parts = [float(np.mean([getattr(test, name) for test in null])) for name in ("of_training", "of_images")]
    assert power_of(0.05, *parts, seeds) == pytest.approx(share_rejected(shifted), abs=0.08)


def test_seeds_needed() -> None:
    few = seeds_needed(0.05, 0.0004, 0.00001)
    assert few is not None and 2 < few < 10
    assert power_of(0.05, 0.0004, 0.00001, few) >= 0.8 > power_of(0.05, 0.0004, 0.00001, few - 1)
    assert (seeds_needed(0.05, 0.0004, 0.00001, level=0.001) or 0) > few, "a stricter level needs more"
    assert seeds_needed(0.05, 0.0004, 0.03**2) is None, "no number of seeds makes more images"
    assert power_of(0.0, 0.0004, 0.0, 5) == pytest.approx(0.05, abs=0.002), "without a difference, the level"
    assert (power_of(0.1, 0.0, 0.0, 3), power_of(0.0, 0.0, 0.0, 3)) == (1.0, 0.0)
    assert power_of(0.0, 0.0, 0.0004, 5, num_images=5) == pytest.approx(0.05, abs=0.002), "few images count as few"
    assert power_of(0.05, 0.0, 0.0004, 5, num_images=5) < power_of(0.05, 0.0, 0.0004, 5) - 0.1


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_scenario(tmp_path_factory.mktemp("made-up"), ("pilot", "fedavg", "fedprox", "untuned", "majority"))


def groups_of(folder: Path) -> dict[str, Group]:
    return {group.label: group for group in group_runs(load_runs([folder]))}


@pytest.mark.slow
def test_seeds_are_paired(scenario: Path, tmp_path: Path) -> None:
    """Only seeds that both have; a reference of one run stands beside each; with one common seed there is no test."""
    folder = tmp_path / scenario.parent.name / scenario.name
    shutil.copytree(scenario, folder)
    build_run(folder / "runs/pilot/seed7", "pilot", 7)
    found = groups_of(folder)
    task = found["pilot"].tasks[0]
    for other, seeds in (("fedavg", 3), ("untuned", 4)):
        result = retrained(found["pilot"], found[other], task)
        assert result is not None and result.num_seeds == seeds
    assert retrained(found["untuned"], found["majority"], task) is None
    shutil.rmtree(folder / "runs/pilot/seed0")
    shutil.rmtree(folder / "runs/pilot/seed1")
    found = groups_of(folder)
    assert retrained(found["pilot"], found["fedavg"], task) is None
    rows = [row for row in against_baseline(list(found.values()), "fedavg") if row.method == "pilot"]
    assert {row.test for row in rows} == {"these-models"}
    best, close = best_and_close([found["pilot"], found["fedavg"]], task)
    assert best == "pilot" and close == {"fedavg"}, "nothing tells them apart"
    text = compare([folder], format="markdown", allow_different=["seeds"]) or ""
    assert "With 2 seeds only large differences" in text


def test_both_tests_are_in_the_table_and_corrected_apart(scenario: Path) -> None:
    groups = list(groups_of(scenario).values())
    rows = against_baseline(groups, "fedavg")
    by_test = {test: [row for row in rows if row.test == test] for test in ("training", "these-models")}
    assert [len(own) for own in by_test.values()] == [12, 12] and DEFAULT_TEST == "training"
    assert all(row.standard_error is not None for row in by_test["training"])
    assert all(row.standard_error is None for row in by_test["these-models"])
    for own in by_test.values():
        smallest = min(own, key=lambda row: row.p_value)
        assert smallest.p_holm == pytest.approx(min(1.0, 12 * smallest.p_value))
    pairs = zip(by_test["training"], by_test["these-models"], strict=True)
    assert all(one.difference == pytest.approx(other.difference) for one, other in pairs)


def test_compare_says_which_test_its_marks_are(scenario: Path) -> None:
    texts = {test: compare([scenario], format="markdown", test=test) or "" for test in ("training", "these-models")}
    assert "would the difference be there after training again" in texts["training"]
    assert "do these trained models differ" in texts["these-models"] and "only large" not in texts["these-models"]
    for test in texts:
        (grid,) = json.loads(compare([scenario], format="json", test=test) or "")["scenarios"]
        assert {row["test"] for row in grid["rows"]} == {test}


@pytest.mark.slow
def test_power_of_made_up_runs(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/metrics.md: a row per task and method that is trained, and their mean; the same numbers in every format."""
    given = ["0.3", "scene-caption=0.5"]
    rows = list(csv.DictReader(io.StringIO(show_power([scenario], given, format="csv") or "")))
    methods = ["pilot", "fedprox", "mean of all"]
    assert [row["method"] for row in rows] == methods * 3
    assert [row["difference"] for row in rows[::3]] == ["0.300000", "0.500000", "0.300000"]
    found = groups_of(scenario)
    one = retrained(found["pilot"], found["fedavg"], found["pilot"].tasks[0])
    assert one is not None and float(rows[0]["std_training"]) == pytest.approx(math.sqrt(one.of_training), abs=1e-6)
    squares = [float(row["std_training"]) ** 2 for row in rows[:2]]
    assert float(rows[2]["std_training"]) ** 2 == pytest.approx(sum(squares) / 2, abs=1e-6)
    seeds = int(rows[0]["seeds"])
    parts = one.of_training, one.of_images
    assert seeds == seeds_needed(0.3, *parts, num_images=one.num_images) <= int(rows[0]["seeds_corrected"])
    num_tests = sum(row.test == "training" for row in against_baseline(list(found.values()), "fedavg"))
    assert num_tests == 12, "with those of references, as a table corrects"
    assert int(rows[0]["seeds_corrected"]) == seeds_needed(0.3, *parts, 0.05 / num_tests, one.num_images)
    records = json.loads(show_power([scenario], given, format="json") or "")
    assert [record["seeds"] for record in records] == [int(row["seeds"]) if row["seeds"] else None for row in rows]
    for form in ("markdown", "latex"):
        assert "mean of all" in (show_power([scenario], given, format=form) or "")
    assert show_power([scenario], given) is None and "mean of all" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "baseline", "says"),
    [
        (["0"], "fedavg", "--difference 0: expected a positive number"),
        (["nan"], "fedavg", "--difference nan: expected a positive number"),
        (["scene-vqa=x"], "fedavg", "--difference scene-vqa=x: expected a positive number, or TASK=NUMBER"),
        (
            ["vqa=0.1"],
            "fedavg",
            "--difference vqa: unknown task. Expected one of: scene-caption, scene-ground, scene-vqa",
        ),
        (["0.1"], "nobody", "--baseline nobody: not among the runs"),
        (["0.1"], "untuned", ""),
    ],
)
def test_bad_input_of_power(scenario: Path, given: list[str], baseline: str, says: str) -> None:
    if not says:
        assert show_power([scenario], given, baseline, format="csv"), "a reference of one run is a baseline, too"
        return
    with pytest.raises(UserError, match=says):
        show_power([scenario], given, baseline)


def test_power_needs_two_seeds(tmp_path: Path) -> None:
    folder = build_scenario(tmp_path, ("pilot", "fedavg"), seeds=(0,))
    with pytest.raises(UserError, match="power: no method has two seeds in common with fedavg"):
        show_power([folder], ["0.05"])
    assert "With one seed nothing says what another training" in (compare([folder], format="markdown") or "")
