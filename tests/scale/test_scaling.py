"""`pilot-bench bench scaling` at tiny sizes: what grows, and by how much."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilot.bench.scale import scaling
from pilot.bench.scale.scaling import QUICK, _fits, _profile, _scenario, as_text
from pilot.cli.main import app

TINY = replace(QUICK, examples=8, tests=2, steps=2, batch=4)
PARTS = ["answers, fedavg", "data", "features", "partition", "tokenising", "training, fedavg", "training, pilot"]


def test_exponents_by_hand() -> None:
    """1, 4, 16 over 1, 2, 4 is the square; 1, 2, 2 has the exponents 1 and 0, and 0.5 over all by least squares."""
    rows = [
        {"factor": factor, "parts": {"a": {"cpu_seconds": a}, "b": {"cpu_seconds": b}}}
        for factor, a, b in ((1, 1.0, 1.0), (2, 4.0, 2.0), (4, 16.0, 2.0))
    ]
    fits = _fits(rows)
    assert fits["a"] == {"exponent": pytest.approx(2.0), "last": pytest.approx(2.0)}
    assert fits["b"] == {"exponent": pytest.approx(0.5), "last": pytest.approx(0.0, abs=1e-12)}


def test_sizes_of_a_scenario() -> None:
    """8 examples of a client for training and a fifth of all for the rest: 10 records, times 2 clients, times 3."""
    scenario = _scenario(TINY, 2, 3)
    assert [(task.num_clients, task.num_train, task.num_test) for task in scenario.tasks] == [(2, 60, 6)] * 3
    assert scenario == type(scenario).model_validate(scenario.model_dump(mode="json")), "runs write it and read it back"
    profile = _profile(TINY, 1, epochs=False)
    assert profile == type(profile).model_validate(profile.model_dump(mode="json")), "runs write it and read it back"
    assert _profile(TINY, 5, epochs=False).steps_of(800) == 2
    assert _profile(TINY, 5, epochs=True).steps_of(800) == 200


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_command_at_tiny_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "QUICK", TINY)
    result = CliRunner().invoke(app, ["bench", "scaling", "--quick", "--json", "--results", str(tmp_path)])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert json.loads((tmp_path / "bench/scaling.json").read_text()) == report
    assert {path.name for path in (tmp_path / "bench").iterdir()} == {"scaling.json", "scaling.pdf", "scaling.png"}
    assert list(report["rows"]) == ["clients", "examples", "rounds"]
    for dimension, rows in report["rows"].items():
        assert [row["factor"] for row in rows] == [1, 2]
        assert sorted(rows[0]["parts"]) == (PARTS if dimension == "examples" else PARTS[-2:])
        assert all(part["seconds"] > 0 for row in rows for part in row["parts"].values())
        assert report["fits"][dimension].keys() == rows[0]["parts"].keys()
    lines = as_text(report).splitlines()
    assert sum(line.startswith("training, pilot") for line in lines) == 3
