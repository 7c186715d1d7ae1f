"""Tuning: the same candidates for a method and a variant of it, told apart by their options."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from pilot.config.load import load_profile
from pilot.errors import UserError
from pilot.io.atomic import read_json
from pilot.methods.catalogue import METHODS
from pilot.registry import make_method
from pilot.report.tables.tuning import write_tuning
from pilot.runs.tune import tune_method

from .small import PROFILE, Small, quiet

REFERENCE = Path(__file__).parents[1] / "results/reference/embedded/scenario2/tuning.csv"
GRID = "tuning_grid: [{text_adapter: 0.003, connector: 0.003}, {text_adapter: 0.001, connector: 0.002}]\n"


@pytest.mark.slow
def test_trials_of_a_method_and_a_variant(small: Small, tmp_path: Path) -> None:
    shutil.copytree(small.folder, tmp_path / "tiny/small", ignore=shutil.ignore_patterns("runs"))
    profile = tmp_path / "tiny.yaml"
    profile.write_text(PROFILE + GRID)
    for method in ("pilot", "pilot+neighbours-1"):
        file = tune_method(str(small.scenario_file), str(profile), method, tmp_path, quiet)
        tuned = read_json(file)
        assert file == tmp_path / "tiny/small/tuning" / f"{method}.json"
        losses = [trial["validation_loss"] for trial in tuned["trials"]]
        assert len(losses) == 2 and len(set(losses)) == 2
        best = tuned["trials"][losses.index(min(losses))]
        assert tuned["best"] == {"learning_rates": best["learning_rates"], "options": {}}
        assert tuned["options"] == ({} if method == "pilot" else {"num_neighbors": 1})
    table, _ = write_tuning(tmp_path / "tiny/small")
    assert [line.split(",")[0] for line in table.read_text().splitlines()[1:]] == ["pilot"] * 2 + [
        "pilot+neighbours-1"
    ] * 2


def test_without_a_grid_nothing_is_tuned(small: Small) -> None:
    files = str(small.scenario_file), str(small.profile_file)
    with pytest.raises(UserError, match="profile tiny: field tuning_grid: empty"):
        tune_method(*files, "pilot", small.results, quiet)


def test_what_trains_nothing_is_not_tuned(small: Small) -> None:
    with pytest.raises(UserError, match="--method majority: this method has no model to train, so it cannot be tuned"):
        tune_method(str(small.scenario_file), str(small.profile_file), "majority", small.results, quiet)


def test_the_embedded_profile_has_the_best_trials_of_the_committed_table() -> None:
    """Rates and options are what tuning found, and every method had as many trials."""
    profile = load_profile("embedded")
    with REFERENCE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tuned = sorted({row["method"] for row in rows})
    assert len(tuned) >= 27 and set(tuned) <= {*METHODS}
    for method in tuned:
        own = [row for row in rows if row["method"] == method]
        assert len(own) == len(profile.trials_of(method)) == len(profile.tuning_grid)
        (best,) = (row for row in own if row["best"] == "True")
        assert float(best["validation_loss"]) == min(float(row["validation_loss"]) for row in own)
        rates = profile.learning_rates_of(method)
        assert (rates.text_adapter, rates.connector) == (float(best["text_adapter"]), float(best["connector"])), method
        options = json.loads(best["options"]) if best["options"] else {}
        made = vars(make_method(method, profile.options_of(method)))
        assert {name: made[name] for name in options} == options, method
