"""`pilot-bench bench federation` at tiny sizes (docs/notes/many-clients.md): its measuring of time, memory, recall."""

import json
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pilot.bench.scale import bench, measure
from pilot.bench.scale.bench import QUICK, bench_federation
from pilot.bench.scale.jobs import _recall, run_job
from pilot.bench.scale.measure import measure_cost, run_fresh, slope
from pilot.bench.scale.text import as_text
from pilot.cli.main import app
from pilot.errors import UserError
from pilot.methods.blocks import Nearest

TINY = replace(
    QUICK, averaging_clients=(2, 4), averaging_parameters=1000, small_clients=(4, 8), ata_clients=(4, 8),
    ata_parameters=1000, recall_clients=40, recall_parameters=300, gaussian_parameters=50, sweep_clients=20,
    sweep_parameters=50, search_clients=(10, 20), simulation_clients=(),
)  # fmt: skip


def test_slope_by_hand() -> None:
    assert slope([1, 10, 100], [3.0, 300.0, 30000.0]) == pytest.approx(2.0)
    assert slope([9, 900], [5.0, 5.0]) == pytest.approx(0.0)


def test_slope_of_what_is_too_small_to_measure() -> None:
    assert slope([1, 10], [0.0, 0.0]) == pytest.approx(0.0)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_simulation_beside_the_local_transport() -> None:
    row = run_job({"name": "simulation", "clients": 2, "width": 100, "rounds": 3})
    assert row["startup_seconds"] > row["round_seconds"] > row["local_round_seconds"] > 0


def test_recall_by_hand() -> None:
    """Of the true (1, 2), (0, 2), (0, 1): both, one and none are found."""
    true = Nearest(torch.tensor([[1, 2], [0, 2], [0, 1]]), torch.zeros(3, 2))
    assert _recall(torch.tensor([[2, 1, 5], [3, 4, 0], [7, 8, 9]]), true) == pytest.approx(0.5)


def test_peak_memory_is_what_the_work_needs() -> None:
    """64 MiB that are gone at the end (Linux counts to within some pages); and 64 MiB of before do not count."""
    held = torch.ones(16 * 2**20)
    result, cost = measure_cost(lambda: float(torch.ones(16 * 2**20).sum()))
    assert result == 16 * 2**20 and 0 < cost.cpu_seconds and 0 < cost.seconds
    assert 60 * 2**20 < cost.peak_bytes < 72 * 2**20
    assert measure_cost(lambda: float(held[0]))[1].peak_bytes < 4 * 2**20


def test_peak_memory_needs_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "CLEAR_PEAK", tmp_path / "missing" / "clear_refs")
    with pytest.raises(UserError, match="Peak memory is measured on Linux only"):
        measure_cost(lambda: None)


def test_a_failed_job_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\n  somewhere\nMemoryError: too much\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"(?s)bench federation: ata failed \(exit status 1\).*MemoryError: too much"):
        run_fresh({"name": "ata"})


@pytest.mark.exhaustive
def test_the_command_at_tiny_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "bench_federation", partial(bench_federation, run=run_job))
    monkeypatch.setattr(bench, "QUICK", TINY)
    result = CliRunner().invoke(app, ["bench", "federation", "--quick", "--json", "--results", str(tmp_path)])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert json.loads((tmp_path / "bench/federation.json").read_text()) == report
    assert sorted(path.name for path in (tmp_path / "bench").iterdir()) == [
        "federation.json", "federation.pdf", "federation.png"
    ]  # fmt: skip
    check(report)
    text = as_text(report)
    assert "memory bound 3 MiB" in text and "independent Gaussian" in text and "20% noise" in text
    for row in report["ata"]:
        shown = [str(row["clients"]), "1000", str(row["rows_per_block"])]
        assert shown in [line.split()[:3] for line in text.splitlines()]


@pytest.mark.exhaustive
def test_the_quick_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "federation", "--quick", "--json", "--results", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "bench/federation.json").read_text()) == json.loads(result.stdout)


def check(report: dict) -> None:  # type: ignore[type-arg]
    """Every section has its rows, and what can be known about them beforehand holds."""
    assert [row["clients"] for row in report["averaging"]] == [2, 4]
    assert all(row["error"] < 1e-6 for row in report["averaging"] + report["small_updates"])
    assert [row["clients"] for row in report["ata"]] == [4, 8]
    assert [case["noise"] for case in report["recall"]] == [0.2, 0.5, None]
    for case in report["recall"]:
        chosen = case["chosen"]
        (same,) = (row for row in case["table"] if (row["size"], row["overfetch"]) == (64, 8))
        assert chosen["recall"] == same["recall"], "re-ranking finds every true neighbour among the candidates"
        assert chosen["recall"] > next(row["recall"] for row in case["table"] if row["overfetch"] == 1)
    assert report["recall"][0]["chosen"]["recall"] > 0.95
    assert set(report["fits"]) == {
        "averaging_time_exponent", "averaging_memory_exponent", "bookkeeping_bytes_per_client", "ata_time_exponent",
        "ata_time_exponent_last", "search_time_exponent", "search_time_exponent_last",
    }  # fmt: skip
    assert "write" not in report and report["machine"]["threads"] == 1


@pytest.mark.slow
def test_with_many_candidates_nothing_is_missed() -> None:
    """20 clients, 3 neighbours, 7 candidates each: all 19 others are compared exactly."""
    found = run_job({
        "name": "recall", "clients": 20, "width": 50, "noise": None, "sizes": [8], "overfetches": [7],
        "chosen": {"size": 8, "overfetch": 7}, "memory": 2**20 + 2**19,
    })  # fmt: skip
    assert found["chosen"]["recall"] == 1.0 and found["table"][0]["recall"] == 1.0


@pytest.mark.slow
def test_jobs_in_processes_of_their_own() -> None:
    """The peak of a fresh process is its own work's, 9 MiB and what its allocator keeps, not the 256 MiB held here."""
    held = torch.ones(64 * 2**20)
    found = run_fresh({"name": "search", "clients": 2000, "size": 64, "overfetch": 2, "memory": 8 * 2**20})
    assert found["clients"] == 2000 and 2**20 < found["peak_bytes"] < 64 * 2**20
    assert float(held[0]) == 1.0
    with pytest.raises(UserError, match="no-such-job failed"):
        run_fresh({"name": "no-such-job"})
