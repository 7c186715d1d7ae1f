"""`--config` and `--configfile` are checked before anything runs: keys, types and names."""

from pathlib import Path
from typing import Any

import pytest

from pilot.config.files import known_names
from pilot.errors import UserError
from pilot.workflow_config import check_methods_in_scenario, read_workflow_config

from .workflow import snakemake

NAMES = [f"{name}_methods" for name in ("figure", "fault", *known_names("studies"))]


def test_defaults_and_forms() -> None:
    config = read_workflow_config({})
    assert (config.results, config.profile, config.fault_methods, config.methods_of("zoo")) == (
        "results", "embedded", None, ()
    )  # fmt: skip
    config = read_workflow_config({
        "results": "~/a//b/./c/", "profile": "embedded+rounds-3", "zoo_methods": "pilot, fedavg",
        "fault_methods": ["pilot"], "figure_methods": None,
    })  # fmt: skip
    assert config.results == str(Path.home() / "a/b/c") and config.fault_methods == ("pilot",)
    assert config.methods_of("zoo") == ("pilot", "fedavg") and config.methods_of("ablation") == ()
    assert config.seeds is None and read_workflow_config({"seeds": 10}).seeds == 10


@pytest.mark.parametrize("field", NAMES)
def test_unknown_methods(field: str) -> None:
    with pytest.raises(UserError, match=f"--configfile.: field {field}: unknown name 'fedavgg'. Did you mean 'fedavg'"):
        read_workflow_config({field: "pilot,fedavgg"})
    with pytest.raises(UserError, match=f"field {field}.1: "):
        read_workflow_config({field: "pilot,"})
    with pytest.raises(UserError, match=f"field {field}: .* got 3"):
        read_workflow_config({field: 3})
    with pytest.raises(UserError, match=f"unknown name '{field[:-1]}'. Did you mean '{field}'"):
        read_workflow_config({field[:-1]: "pilot"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"profil": "embedded"}, "field profil: unknown name 'profil'. Did you mean 'profile'"),
        ({"profile": "embeded"}, "field profile: unknown name 'embeded'. Did you mean 'embedded'"),
        ({"profile": "my.yaml"}, "field profile: unknown name 'my.yaml'"),
        (
            {"profile": "embedded+round-3"},
            "'round-3' is not a variant of a profile. Expected one of: clock-even, clock-uneven,",
        ),
        ({"profile": 7}, "field profile: .* got 7"),
        ({"figure_methods": "pilot+no-ota"}, "'no-ota' is not a variant of method pilot"),
        ({"heterogeneity_methods": "fedavg"}, "study heterogeneity: fedavg: only baselines are left"),
        ({"results": 2024}, "field results: expected a folder's name; Snakemake reads 2024 as int: write ./2024"),
        ({"results": {"a": "b"}}, "field results: expected a folder's name; Snakemake reads .* as dict"),
        ({"results": "--force"}, "does not start with '-', got '--force'"),
        ({"results": " "}, "is not empty"),
        ({"seeds": 0}, "field seeds: .* got 0"),
        ({"seeds": "all"}, "field seeds: .* got 'all'"),
        ({"seeds": True}, "field seeds: expected an integer, got True"),
        ({"results": "~nosuchuser/x"}, "field results: expected a folder, got '~nosuchuser/x': .* home directory"),
        ({"results": "a{b}"}, "without '{'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_workflow_config(values)


def test_methods_that_a_scenario_does_not_run() -> None:
    check_methods_in_scenario("fault_methods", "smoke", ("pilot",), ("pilot", "fedavg"))
    with pytest.raises(UserError, match="fault_methods: scenario smoke has no runs of scaffold. .*: pilot, fedavg"):
        check_methods_in_scenario("fault_methods", "smoke", ("pilot", "scaffold"), ("pilot", "fedavg"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "said", "message"),
    [
        ("smoke", "figure_methods: [fedavgg]", "field figure_methods: unknown name 'fedavgg'. Did you mean 'fedavg'?"),
        ("smoke", "figure_methods: scaffold", "field figure_methods: scenario smoke has no runs of scaffold."),
        ("smoke_faults", "fault_methods: scaffold", "field fault_methods: scenario smoke has no runs of scaffold."),
    ],
)
def test_snakemake_refuses_before_anything_runs(target: str, said: str, message: str, tmp_path: Path) -> None:
    """Tables of an earlier run stay: Snakemake removes a rule's outputs before it starts the rule."""
    file, results = tmp_path / "my.yaml", tmp_path / "results"
    file.write_text(f"results: {results}\n{said}\n")
    table = results / "smoke/smoke/tables/main.csv"
    table.parent.mkdir(parents=True)
    table.write_text("of an earlier run")
    done = snakemake(target, "--cores", "1", "--configfile", file)
    assert done.code == 1 and message in done.text
    assert {path for path in results.rglob("*") if path.is_file()} == {table}
