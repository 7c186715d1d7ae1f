"""What changed between two result folders: made-up differences of known size, and what is only noise."""

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pilot.cli.main import app
from pilot.errors import UserError
from pilot.io.atomic import read_json, read_jsonl, write_json, write_jsonl
from pilot.report.compare.change_text import as_text
from pilot.report.compare.changes import ChangeRow, Changes, find_changes, same_settings

from .synthetic import NUM_EXAMPLES, build_scenario, example_id, reseal, write_metrics

pytestmark = pytest.mark.slow

METHODS = ("pilot", "fedavg", "fedprox")
HALF = set(range(20))
"""The examples of 40 that are answered right on the old side."""


def answer(scenario: Path, method: str, right: Mapping[int, set[int]], *, answers: bool = True) -> None:
    """Make each seed of a method right on these examples of scene-vqa, for every client, and wrong on the others."""
    for seed, known in right.items():
        folder = scenario / "runs" / method / f"seed{seed}" / "eval"
        by_id = {example_id("scene-vqa", number): float(number in known) for number in range(NUM_EXAMPLES)}
        scores = read_jsonl(folder / "per_example.jsonl")
        for row in scores:
            if (row["task"], row["protocol"]) == ("scene-vqa", "personalised"):
                row["value"] = by_id[row["id"]]
        write_jsonl(folder / "per_example.jsonl", scores)
        metrics = read_json(folder / "metrics.json")
        for entry in metrics["entries"]:
            if (entry["task"], entry["protocol"]) == ("scene-vqa", "personalised"):
                entry["value"] = len(known) / NUM_EXAMPLES
        rows = read_jsonl(folder / "samples.jsonl")
        for row in rows if answers else ():
            if row["task"] == "scene-vqa":
                row["prediction"] = "right" if by_id[row["id"]] else "wrong"
        write_jsonl(folder / "samples.jsonl", rows)
        write_metrics(folder, metrics)


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal result folders, `old` and `new`, each with one scenario."""
    scenario = build_scenario(tmp_path / "old", METHODS)
    for method in METHODS:
        answer(scenario, method, dict.fromkeys((0, 1, 2), HALF))
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    return scenario, tmp_path / "new" / "embedded" / "scenario2"


def row_of(changes: Changes, method: str, task: str = "scene-vqa") -> ChangeRow:
    """The one row of a method and task."""
    (row,) = (row for row in changes.rows if (row.method, row.task) == (method, task))
    return row


def run(*arguments: str | Path) -> Any:
    """`pilot-bench compare` with these arguments."""
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], catch_exceptions=False)


def test_equal_folders(sides: tuple[Path, Path]) -> None:
    changes = find_changes(*sides)
    assert len(changes.rows) == 3 * 3 and {row.verdict for row in changes.rows} == {"equal"}
    assert not changes.changed and changes.causes == () and changes.only_old == changes.only_new == ()
    first = row_of(changes, "pilot")
    assert (first.old, first.new, first.difference, first.p_value, first.num_seeds) == (0.5, 0.5, 0.0, None, 3)


def test_a_planted_change_is_found_and_nothing_else(sides: tuple[Path, Path]) -> None:
    # Of 40 images, 12 go from wrong to right in every seed: 0.5 to 0.8. All signs have to fall the same way: p is
    # about 2 / 2**12 = 0.0005, from 10,000 random patterns.
    answer(sides[1], "fedprox", dict.fromkeys((0, 1, 2), set(range(32))))
    changes = find_changes(*sides)
    row = row_of(changes, "fedprox")
    assert row.verdict == "better" and changes.changed
    assert (row.old, row.new, row.num_seeds, row.num_images) == (0.5, 0.8, 3, 40)
    assert row.difference == pytest.approx(0.3) and row.p_value == row.p_holm == pytest.approx(0.0005, abs=0.0005)
    assert row.ci_low is not None and row.ci_high is not None and 0.1 < row.ci_low < 0.3 < row.ci_high < 0.5
    assert {other.verdict for other in changes.rows if other is not row} == {"equal"}
    assert row_of(find_changes(*reversed(sides)), "fedprox").verdict == "worse"


def test_what_seeds_do_by_themselves_is_noise(sides: tuple[Path, Path]) -> None:
    # One seed finds 12 more, one loses 2 others, one finds 2: the images alone would say that something changed
    # (p of about 0.001), but seeds that differ by 0.3, -0.05 and 0.05 do not say so of seeds to come.
    answer(sides[1], "fedavg", {0: set(range(32)), 1: set(range(18)), 2: set(range(22))})
    changes = find_changes(*sides)
    row = row_of(changes, "fedavg")
    assert row.verdict == "within noise" and not changes.changed
    assert row.difference == pytest.approx(0.1)
    assert row.p_holm is not None and row.p_holm < 0.05
    assert row.ci_low is not None and row.ci_high is not None and row.ci_low < 0 < row.ci_high


def test_other_words_of_the_same_worth_are_noise(sides: tuple[Path, Path]) -> None:
    path = sides[1] / "runs" / "pilot" / "seed0" / "eval" / "samples.jsonl"
    path.write_text(path.read_text().replace('"wrong"', '"also wrong"'))
    reseal(path.parents[1])
    row = row_of(find_changes(*sides), "pilot")
    assert (row.verdict, row.difference, row.p_value, row.ci_low) == ("within noise", 0.0, 1.0, None)


def test_the_same_answers_with_other_scores_are_a_change(sides: tuple[Path, Path]) -> None:
    answer(sides[1], "pilot", {1: HALF | {20}}, answers=False)
    changes = find_changes(*sides)
    row = row_of(changes, "pilot")
    assert row.verdict == "scored differently" and changes.changed and row.p_value is None
    assert row.difference == pytest.approx(1 / 40 / 3)


def test_scores_alone_are_enough(sides: tuple[Path, Path]) -> None:
    """docs/compare.md: `compare` works with packs, which have no answers unless `--everything` was given."""
    answer(sides[1], "pilot", dict.fromkeys((0, 1, 2), set(range(10))))
    for samples in sides[1].glob("runs/*/*/eval/samples.jsonl"):
        samples.unlink()
    changes = find_changes(*sides)
    assert (row_of(changes, "pilot").verdict, row_of(changes, "fedavg").verdict) == ("worse", "equal")
    assert "A side has scores without answers" in as_text(changes, "markdown")


def test_p_values_are_corrected_over_the_rows_that_were_tested(sides: tuple[Path, Path]) -> None:
    for method in METHODS:
        answer(sides[1], method, dict.fromkeys((0, 1, 2), set(range(26))))
    rows = [row_of(find_changes(*sides), method) for method in METHODS]
    # Six images of one sign: p of about 2 / 2**6 = 0.031 alone, 0.094 as one of three.
    for row in rows:
        assert row.p_value is not None and row.p_value == pytest.approx(0.031, abs=0.006)
        assert row.p_holm == pytest.approx(3 * row.p_value) and row.verdict == "within noise"
    shutil.rmtree(sides[1] / "runs" / "fedavg")
    shutil.rmtree(sides[1] / "runs" / "pilot")
    assert row_of(find_changes(*sides), "fedprox").verdict == "better"


def test_what_one_side_lacks_is_listed(sides: tuple[Path, Path]) -> None:
    shutil.rmtree(sides[0] / "runs" / "pilot" / "seed1")
    shutil.rmtree(sides[1] / "runs" / "fedprox")
    changes = find_changes(*sides)
    assert changes.only_old == ("embedded/scenario2: fedprox",)
    assert changes.only_new == ("embedded/scenario2: pilot, seed 1",)
    assert {row.method for row in changes.rows} == {"pilot", "fedavg"} and row_of(changes, "pilot").num_seeds == 2
    text = as_text(changes, "markdown")
    assert f"- Only in {sides[0]}: embedded/scenario2: fedprox\n" in text


def test_causes_and_costs(sides: tuple[Path, Path]) -> None:
    for method in METHODS:
        for seed in (0, 1, 2):
            folder = sides[1] / "runs" / method / f"seed{seed}"
            manifest = read_json(folder / "manifest.json") | {"versions": {"torch": "3.0"}}
            write_json(folder / "manifest.json", manifest)
            config = read_json(folder / "config.json")
            config["digests"]["source"] = method * 20
            config["budget"] |= {"rounds": 4} if method == "pilot" else {}
            write_json(folder / "config.json", config)
            write_json(folder / "timing.json", read_json(folder / "timing.json") | {"wall_seconds": 30.75})
    changes = find_changes(*sides)
    found = {cause.what: (cause.old, cause.new, cause.methods) for cause in changes.causes}
    assert found == {
        "version of torch": ("none", "3.0", ()),
        "source digest": ("", "", ()),
        "budget rounds": ("3", "4", ("pilot",)),
    }
    text = as_text(changes, "markdown")
    assert "- budget rounds: 3 → 4; pilot.\n" in text and "- source digest: several values; all methods.\n" in text
    # Wall time was 60.5 s and one more by seed: 61.5 on average.
    assert "| pilot | 43.20 | 125,000 | 61.5 → 30.8 (-50.0 %) |" in text


def test_other_test_sets_are_refused(sides: tuple[Path, Path]) -> None:
    path = sides[1] / "runs" / "fedavg" / "seed2" / "eval" / "metrics.json"
    path.write_text(path.read_text().replace("t" * 64, "u" * 64))
    with pytest.raises(UserError, match=r"fedavg/seed2: their test sets differ.*--side-by-side"):
        find_changes(*sides)


def test_nothing_in_common_is_refused(sides: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no method with the same seed on both sides"):
        find_changes(sides[0] / "runs" / "pilot", sides[1] / "runs" / "fedavg")
    other = Path(shutil.copytree(sides[1], tmp_path / "other" / "embedded" / "scenario1"))
    for config in other.glob("runs/*/*/config.json"):
        config.write_text(config.read_text().replace("scenario2", "scenario1"))
    with pytest.raises(
        UserError, match="no scenario in common: one side has embedded/scenario2, the other embedded/scen"
    ):
        find_changes(sides[0], other)


def test_two_result_folders_are_versions_and_other_paths_are_not(sides: tuple[Path, Path]) -> None:
    old, new = sides
    assert same_settings(old, new) and same_settings(old.parents[1], new.parents[1])
    for pair in ((old / "runs" / "pilot", new / "runs" / "pilot"), (old, new / "runs" / "pilot" / "seed0"), (old, old)):
        assert not same_settings(*pair), pair
    assert "| method" in run(old, new).stdout and "## What changed from" in run(old, new).stdout
    assert "pilot [new]" in run(old, new, "--side-by-side", "--format", "csv").stdout
    assert "## What changed from" in run(old / "runs" / "pilot", new / "runs" / "pilot", "--changes").stdout
    with pytest.raises(UserError, match="--changes: expected two result folders, OLD and NEW, got 1"):
        run(old, "--changes")
    with pytest.raises(UserError, match="--fail-on-change: not valid with --side-by-side"):
        run(old, new, "--fail-on-change", "--side-by-side")


def test_exit_codes(sides: tuple[Path, Path]) -> None:
    assert run(*sides, "--fail-on-change").exit_code == 0
    answer(sides[1], "fedprox", dict.fromkeys((0, 1, 2), set(range(32))))
    assert run(*sides).exit_code == 0
    changed = run(*sides, "--fail-on-change")
    assert changed.exit_code == 1 and "Something changed beyond noise: 8 equal, 1 better." in changed.stdout


def test_formats(sides: tuple[Path, Path]) -> None:
    answer(sides[1], "fedprox", dict.fromkeys((0, 1, 2), set(range(32))))
    changes = find_changes(*sides)
    (line,) = [
        line
        for line in csv.DictReader(io.StringIO(as_text(changes, "csv")))
        if (line["method"], line["task"]) == ("fedprox", "scene-vqa")
    ]
    assert (line["old"], line["new"], line["verdict"]) == ("0.500000", "0.800000", "better")
    assert (line["old_megabytes"], line["new_wall_seconds"]) == ("27.000000", "61.500000")
    value = json.loads(as_text(changes, "json"))
    assert value["changed"] is True and len(value["rows"]) == 9
    assert [row["verdict"] for row in value["rows"] if row["method"] == "fedprox"] == ["better", "equal", "equal"]
    table = table_lines(as_text(changes, "table"))
    assert len({len(line) for line in table[:11]}) == 1, "columns of the terminal's table stand below each other"
    with pytest.raises(UserError, match="--format latex: not for changes"):
        as_text(changes, "latex")


def table_lines(text: str) -> Sequence[str]:
    """The lines of tables in a text."""
    return [line for line in text.splitlines() if line.startswith("|")]
