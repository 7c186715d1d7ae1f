"""`pilot-bench bench round` at tiny sizes: what it counts, and that both engines end in the same server state."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilot.bench.scale.round import as_text, bench_round, load_specs
from pilot.cli.main import app
from pilot.errors import UserError
from pilot.federation.flower import server
from pilot.io.atomic import read_json

from ..small import Small, quiet


def options(small: Small, *more: str) -> list[str]:
    """The command for the small scenario."""
    files = ["--scenario", str(small.scenario_file), "--profile", str(small.profile_file)]
    return ["bench", "round", str(small.folder), *files, "--repeats", "1", "--rounds", "2", *more]


@pytest.mark.slow
def test_overhead_by_method(small: Small) -> None:
    """Steps of two rounds of six clients are most of a round even here, and not all of it."""
    before = sorted(path for path in small.folder.iterdir())
    result = CliRunner().invoke(app, options(small, "--method", "fedavg", "--compared", "", "--json"))
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert list(report["overhead"]) == ["fedavg"] and report["engines"] is None
    row = report["overhead"]["fedavg"]
    assert 0 < row["overhead"]["median"] < 1 and 0 < row["overhead_seconds"] < row["round_seconds"]["median"]
    assert row["overhead_seconds"] == pytest.approx(row["overhead"]["median"] * row["round_seconds"]["median"])
    assert sorted(path for path in small.folder.iterdir()) == before, "nothing is written into the scenario's folder"
    line = next(line for line in as_text(report).splitlines() if line.startswith("fedavg"))
    assert line.split()[-1] == f"{row['overhead']['median']:.2%}"


def test_step_seconds_are_a_part_of_training(small: Small) -> None:
    timing = read_json(small.run("pilot") / "timing.json")
    assert 0 < timing["step_seconds"] < timing["train_seconds"] < timing["wall_seconds"]


@pytest.mark.engine
@pytest.mark.exhaustive
def test_both_engines(small: Small) -> None:
    """The same bytes, from Ray's workers and from this process; a start of Ray takes longer than its rounds here."""
    result = CliRunner().invoke(app, options(small, "--method", "fedavg", "--compared", "pilot", "--json"))
    assert result.exit_code == 0, result.output
    engines = json.loads(result.stdout)["engines"]
    assert engines["method"] == "pilot" and engines["server_states_equal"] is True
    assert engines["flower"]["startup_seconds"]["median"] > engines["local"]["startup_seconds"]["median"] > 0
    measured = [engines[name]["round_seconds"]["median"] for name in ("flower", "local")]
    assert engines["ratio"] == pytest.approx(measured[0] / measured[1])


@pytest.mark.slow
def test_other_server_states_are_seen(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that trains another seed."""
    from pilot.federation.training import train_run

    monkeypatch.setattr(server, "simulate_run", lambda spec, *rest: train_run(small.spec(spec.method, seed=1), *rest))
    specs, both = load_specs(str(small.scenario_file), str(small.profile_file), ["fedavg"], "fedavg", 2)
    report = bench_round(specs, both, small.folder, 1, quiet)
    assert report["engines"]["server_states_equal"] is False and "NOT EQUAL" in as_text(report)


def test_what_cannot_be_measured_is_refused(small: Small, tmp_path: Path) -> None:
    names = (str(small.scenario_file), str(small.profile_file))
    with pytest.raises(UserError, match=r"--method: unknown .*untuned"):
        load_specs(*names, ["untuned"], "", 2)
    specs, _ = load_specs(*names, ["fedavg"], "", 1)
    with pytest.raises(UserError, match="expected at least 2"):
        bench_round(specs, None, small.folder, 1, quiet)
    specs, _ = load_specs(*names, [], "", 2)
    assert [spec.method for spec in specs] == ["pilot", "fedavg"]
    with pytest.raises(UserError, match="data: missing"):
        bench_round(specs, None, tmp_path, 1, quiet)
    half = tmp_path / "half.yaml"
    half.write_text(small.profile_text + "federation: {participation: {fraction: 0.5}}\n")
    specs, _ = load_specs(names[0], str(half), ["fedavg"], "", 2)
    with pytest.raises(UserError, match="federation.participation: expected none"):
        bench_round(specs, None, small.folder, 1, quiet)
