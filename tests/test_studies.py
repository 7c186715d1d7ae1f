"""Study files: those that ship, what they select, and what is refused."""

from pathlib import Path

import pytest
import yaml

from pilot.config.files import known_names
from pilot.config.load import load_scenario
from pilot.config.study import Setting, Study, load_study
from pilot.config.variant import base_name
from pilot.errors import UserError
from pilot.methods.catalogue import METHODS

PART = {"name": "one", "title": "One", "scenarios": ["scenario2"], "methods": ["pilot", "fedavg"], "baseline": "fedavg"}


def written(folder: Path, *parts: dict[str, object]) -> Study:
    """A study of these parts, through a file."""
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({"name": "mine", "title": "Mine", "parts": list(parts)}))
    return load_study(file)


def test_shipped_studies() -> None:
    studies = {name: load_study(name) for name in known_names("studies")}
    assert set(studies) == {"zoo", "ablation", "heterogeneity", "asynchrony", "smoke"}
    assert all(study.name == name for name, study in studies.items())
    assert [part.name for part in studies["ablation"].parts] == [
        "components", "neighbours", "distance", "adapter-init", "client-features", "experts", "rounds"
    ]  # fmt: skip
    zoo = studies["zoo"]
    assert len(zoo.methods) == 54 and [part.baseline for part in zoo.parts] == ["fedavg"] * 2 + ["pilot"] * 6
    assert {*map(base_name, zoo.methods), "untuned", "majority"} == {*METHODS}
    sweeps = {
        (name, part.name): sorted(part.axis.values.values())
        for name, study in studies.items()
        for part in study.parts
        if part.axis
    }
    assert sweeps == {
        ("ablation", "neighbours"): [1, 2, 3, 5, 8],
        ("ablation", "rounds"): [3, 6, 12, 36],
        ("heterogeneity", "alpha"): [0.1, 0.5, 1, 100],
        ("heterogeneity", "clients"): [1, 3, 6],
        ("smoke", "aggregation"): [0, 1],
    }


def test_settings_and_the_runs_beside_the_scenarios_own(tmp_path: Path) -> None:
    study = load_study("ablation")
    settings = study.settings("embedded")
    usual = Setting("scenario2", "embedded")
    assert [setting.profile for setting in settings] == [
        "embedded", "embedded+rounds-3", "embedded+rounds-6", "embedded+rounds-36"
    ]  # fmt: skip
    further = study.further_methods(usual, "embedded")
    assert len(settings[usual]) == 15 and set(settings[usual]) - set(further) == {"pilot", "fedavg"}
    part = PART | {"profiles": ["base", "rounds-3", "smol"]}
    (other,) = written(tmp_path, part).parts
    assert [setting.profile for setting in other.settings("embedded")] == ["embedded", "embedded+rounds-3", "smol"]
    # A variant has no targets of its own: all of its runs are the study's.
    assert study.further_methods(Setting("scenario2", "embedded+rounds-3"), "embedded") == ("pilot", "fedavg")
    assert usual.runs(tmp_path, ["pilot+no-ata"]) == [
        tmp_path / "embedded/scenario2/runs/pilot+no-ata" / f"seed{seed}" for seed in (0, 1, 2)
    ]
    assert Setting("llava-scenario2", "llava") in load_study("zoo").settings("llava")


def test_number_of_seeds(tmp_path: Path) -> None:
    """A scenario's own seeds first, so that its runs are shared, then the smallest others."""
    scenario = load_scenario("scenario2")
    assert scenario.first_seeds(None) == (0, 1, 2) and scenario.first_seeds(2) == (0, 1)
    assert scenario.model_copy(update={"seeds": (1, 4)}).first_seeds(5) == (1, 4, 0, 2, 3)
    study = load_study("zoo").subset(methods=["taskavg"], seeds=5)
    settings = study.settings("embedded")
    assert {setting.num_seeds for setting in settings} == {5}
    (setting, *_) = settings
    assert [path.name for path in setting.runs(tmp_path, ["taskavg"])] == [f"seed{seed}" for seed in range(5)]
    assert study.further_methods(setting, "embedded") == ("taskavg",)


def test_some_of_a_study() -> None:
    study = load_study("ablation")
    some = study.subset(methods=["pilot+no-ata", "pilot+neighbours-5"])
    assert {part.name: part.methods for part in some.parts} == {
        "components": ("pilot", "pilot+no-ata"), "neighbours": ("pilot", "pilot+neighbours-5")
    }  # fmt: skip
    (neighbours,) = study.subset(parts=["neighbours"], methods=["pilot+neighbours-5"]).parts
    assert (
        neighbours.varied_dimension == "methods"
        and neighbours.axis_value({"profiles": "base"}, "pilot+neighbours-5") == 5
    )
    assert study.subset() == study
    with pytest.raises(UserError, match="study ablation: field --part: unknown name 'neighbors'. Did you mean"):
        study.subset(parts=["neighbors"])
    with pytest.raises(UserError, match="study ablation: field methods: unknown name 'pilot\\+no-atta'"):
        study.subset(methods=["pilot+no-atta"])
    with pytest.raises(UserError, match="study ablation: .* only baselines are left"):
        study.subset(methods=["pilot"])


def test_positions(tmp_path: Path) -> None:
    axis = {"label": "rounds", "values": {"rounds-3": 3, "base": 12}}
    (part,) = written(tmp_path, PART | {"profiles": ["rounds-3", "base"], "axis": axis}).parts
    found = {setting.profile: part.axis_value(names, "pilot") for setting, names in part.settings("embedded").items()}
    assert found == {"embedded+rounds-3": 3, "embedded": 12}
    (plain,) = written(tmp_path, PART).parts
    assert plain.varied_dimension is None and plain.axis_value({"scenarios": "scenario2"}, "pilot") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "fedprox"}, "baseline: expected one of the methods, got 'fedprox'"),
        ({"methods": ["pilot", "fedavg", "pilot"]}, "methods: expected distinct names"),
        ({"methods": ["fedavg"]}, "methods: .*at least 2 items"),
        ({"axis": {"label": "x", "values": {"pilot": 1}}}, "axis.values: expected a number for every method, every"),
        ({"scenario": ["scenario2"]}, "unknown name 'scenario'. Did you mean 'scenarios'"),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"mine.yaml: field parts.*{message}"):
        written(tmp_path, PART | changes)


def test_parts_are_distinct(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="parts: expected distinct names"):
        written(tmp_path, PART, PART)
    with pytest.raises(UserError, match="study: unknown name 'zo'. Did you mean 'zoo'"):
        load_study("zo")
