"""Figures: all of them, some of them, and what is said when one cannot be drawn."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pilot.errors import UserError
from pilot.report.numbers.load import load_run
from pilot.report.plots.drift import by_round
from pilot.report.plots.heterogeneity import fold_labels
from pilot.report.plots.losses import read_curves
from pilot.report.plots.mixture import last_router_weights, read_aggregations
from pilot.report.plots.samples import pick
from pilot.report.plots.style import method_style
from pilot.report.plots.write import FIGURES, write_figures


@pytest.mark.exhaustive
def test_every_figure_twice_to_the_same_bytes(scenario_copy: Path) -> None:
    first = {path.name: path.read_bytes() for path in write_figures(scenario_copy)}
    assert sorted(first) == sorted(f"{name}.{ending}" for name in FIGURES for ending in ("pdf", "png"))
    assert all(b"CreationDate" not in data and b"Matplotlib" not in data for data in first.values())
    again = write_figures(scenario_copy, only=["bars", "losses"])
    assert len(again) == 4 and all(path.read_bytes() == first[path.name] for path in again)


@pytest.mark.slow
def test_a_subset_of_methods(scenario_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = write_figures(scenario_copy, methods=["local", "untuned"], only=["cost", "router", "samples"])
    assert {path.stem for path in written} == {"cost", "samples"}
    assert "figure router skipped: there is no run of pilot among the chosen methods" in capsys.readouterr().out


def test_figures_of_some_methods_do_not_read_the_others(scenario_copy: Path) -> None:
    (scenario_copy / "runs" / "pilot+no-ata" / "seed0").mkdir(parents=True)
    with pytest.raises(UserError, match="this run is not complete"):
        write_figures(scenario_copy, only=["cost"])
    assert write_figures(scenario_copy, methods=["pilot", "fedavg"], only=["cost"])


def test_missing_inputs_are_said(scenario_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tables", "partition", "data"):
        shutil.rmtree(scenario_copy / name)
    (scenario_copy / "figures").mkdir(exist_ok=True)
    (scenario_copy / "figures" / "bars.png").write_bytes(b"of an earlier run")
    assert write_figures(scenario_copy, only=["bars", "heterogeneity", "samples"]) == []
    said = capsys.readouterr().out
    assert "main.csv is missing" in said and "heterogeneity.json is missing" in said and "samples skipped" in said
    assert not (scenario_copy / "figures" / "bars.png").exists()


def test_no_runs_at_all_still_shows_the_partition(scenario_copy: Path) -> None:
    shutil.rmtree(scenario_copy / "runs")
    assert {path.stem for path in write_figures(scenario_copy)} == {"heterogeneity"}


def test_wrong_names_are_refused(scenario: Path) -> None:
    with pytest.raises(UserError, match="unknown figure pie. Expected some of: bars, cost"):
        write_figures(scenario, only=["pie"])
    with pytest.raises(UserError, match="unknown method fedsgd. Expected some of: central, fedavg"):
        write_figures(scenario, methods=["fedsgd"])


def test_curves_join_rounds_and_mark_phases(scenario: Path) -> None:
    curves = read_curves(load_run(scenario / "runs" / "pilot" / "seed0"))
    assert [curve.client for curve in curves] == list(range(9))
    assert len(curves[0].losses) == 24
    assert curves[0].rounds == ((0, 1), (8, 2), (16, 3)) and curves[0].phases == (4,)


def test_router_and_distances_are_read_from_the_last_round(scenario: Path) -> None:
    run = load_run(scenario / "runs" / "pilot" / "seed1")
    weights = last_router_weights([run], "scene-caption")
    last = json.loads((run.path / "rounds.jsonl").read_text().splitlines()[-1])
    assert weights.tolist() == [client["diagnostics"]["router_probabilities"] for client in last["clients"][3:6]]
    assert [found.phase for found in read_aggregations(run)] == ["stage1", "stage2", "stage2", "stage2"]


def test_drift_is_the_mean_over_seeds_of_a_rounds_last_phase(scenario: Path) -> None:
    runs = [load_run(scenario / "runs" / "pilot" / f"seed{seed}") for seed in (0, 1, 2)]
    # Rounds 1, 2, 3: 0.1, 0.2, 0.3 of stage 2 for seed 0, 0.01 and 0.02 more for the others; not the 0.6 of stage 1.
    assert by_round(runs).tolist() == pytest.approx([0.11, 0.21, 0.31])
    short = replace(runs[0], path=scenario)
    short.__dict__["rounds"] = runs[0].rounds[:2]
    assert by_round([short, runs[1]]).tolist() == pytest.approx([(0.1 + 0.11) / 2, 0.21, 0.31])
    local = by_round([load_run(scenario / "runs" / "local" / "seed0")])
    assert local.shape == (3,) and np.isnan(local).all()


def test_rare_labels_are_folded() -> None:
    labels = [f"l{number}" for number in range(9)]
    folded = fold_labels(labels, labels, np.arange(18).reshape(2, 9))
    assert list(folded) == [*labels[:7], "other (2)"]
    assert folded["other (2)"].tolist() == [7 + 8, 16 + 17]


def test_a_method_keeps_its_colour_and_samples_their_choice() -> None:
    assert method_style("pilot").colour == "#D55E00" and method_style("scaffold") == method_style("scaffold")
    variant = method_style("pilot+no-ata")
    assert variant.colour == method_style("pilot").colour and variant != method_style("pilot")
    # sha256: "b" 3e23..., "c" 2e7d..., "a" ca97...
    assert pick(["a", "b", "c"], 2) == ["c", "b"]
