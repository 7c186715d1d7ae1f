"""`pilot-bench bench ct-moa|difference-loss|aggregate|train-step`: from the command to its report."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from typer.testing import CliRunner

from pilot.bench.kernels import aggregate, ct_moa, losses, plain, train_step
from pilot.bench.kernels.references import reference
from pilot.cli.main import app
from pilot.errors import UserError

from ..small import Small, quiet


def report_of(*arguments: str) -> dict[str, Any]:
    """The JSON that a bench prints."""
    result = CliRunner().invoke(app, ["bench", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def failure_of(*arguments: str) -> str:
    """The message of a bench that fails."""
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code != 0 and isinstance(result.exception, UserError)
    return str(result.exception)


def wrong(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function with a small error."""
    return lambda *arguments: function(*arguments) * 1.001


@pytest.mark.slow
def test_ct_moa() -> None:
    report = report_of("ct-moa", "--quick", "--repeats", "2")
    assert [tuple(row["case"].values()) for row in report["rows"]] == [(2, 8, 4, 3, 3), (1, 16, 8, 5, 3)]
    for row in report["rows"]:
        assert row["case"].keys() == {"B", "N", "D", "C", "T"}
        assert row["seconds"].keys() == {"ours", "loop", "products"} and row["difference"] < ct_moa.TOLERANCE
        assert row["ratios"].keys() == {"loop / ours", "ours / products"} and row["repeats"] == 2
    text = CliRunner().invoke(app, ["bench", "ct-moa", "--quick", "--repeats", "1"]).stdout
    assert text.splitlines()[1].split()[:5] == ["2", "3", "4", "8", "3"]


def test_ct_moa_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = reference("ct_moa")
    monkeypatch.setattr(module, "mlp", wrong(module.mlp))
    monkeypatch.setattr(ct_moa, "reference", lambda name: module)
    assert "bench ct-moa, Shape(B=2, N=3, D=4, C=8" in failure_of("ct-moa", "--quick", "--repeats", "1")


def test_difference_loss_is_linear_in_memory() -> None:
    """At widths that are large beside N: ours holds a few times B N C numbers, the explicit form C^2 at least."""
    report = losses.bench_difference_loss(losses.Sizes(2, 16, (512, 1024, 2048)), 1, quiet).to_json()
    assert report["summary"]["ours memory exponent"] == pytest.approx(1.0, abs=0.15)
    assert report["summary"]["explicit memory exponent"] > 1.5
    widths = [row["case"]["C"] for row in report_of("difference-loss", "--quick", "--repeats", "1")["rows"]]
    assert widths == [8, 16, 32]


def test_difference_loss_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "difference_loss", wrong(losses.difference_loss))
    assert "bench difference-loss, C 8: ours" in failure_of("difference-loss", "--quick", "--repeats", "1")


def test_aggregate() -> None:
    report = report_of("aggregate", "--quick", "--repeats", "1")
    cases = [(row["case"]["what"], row["case"]["clients"]) for row in report["rows"]]
    assert cases == [("weighted mean", 2), ("weighted mean", 3), ("ATA", 4), ("ATA", 5)]
    found = aggregate.bench_aggregate(aggregate.Sizes((4, 8, 16), (4, 5), 8_000), 1, quiet)
    assert found.summary["weighted mean, ours memory exponent"] == pytest.approx(0.0, abs=0.05)
    assert found.summary["weighted mean, plain memory exponent"] > 0.8


def test_aggregate_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = aggregate.weighted_mean
    monkeypatch.setattr(aggregate, "weighted_mean", lambda states: {n: v + 1e-3 for n, v in real(states).items()})
    assert "weighted mean of 2 clients" in failure_of("aggregate", "--quick", "--repeats", "1")


@pytest.mark.slow
def test_train_step(small: Small, tmp_path: Path) -> None:
    (profile := tmp_path / "tiny.yaml").write_text(small.profile_text.replace("batch_size: 2", "batch_size: 4"))
    arguments = (str(small.folder), "--scenario", str(small.scenario_file), "--profile", str(profile))
    report = report_of("train-step", *arguments, "--repeats", "1")
    assert [row["case"]["step"] for row in report["rows"]] == ["fedavg", "pilot stage1", "pilot stage2"]
    for row in report["rows"]:
        assert row["difference"] <= train_step.TOLERANCE
        assert row["ratios"].keys() == {"plain / ours", "share"} and 0 < row["ratios"]["share"]["median"] < 1
    assert report["summary"].keys() == {"pilot stage1 / fedavg", "pilot stage2 / fedavg"}
    assert report["settings"]["batch_size"] == 4


@pytest.mark.slow
def test_train_step_that_differs(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    module = reference("ct_moa")
    monkeypatch.setattr(module, "mlp", wrong(module.mlp))
    monkeypatch.setattr(plain, "reference", lambda name: module if name == "ct_moa" else reference(name))
    arguments = (str(small.folder), "--scenario", str(small.scenario_file), "--profile", str(small.profile_file))
    assert "bench train-step, fedavg: losses differ by" in failure_of("train-step", *arguments, "--repeats", "1")


def test_difference_of_losses_by_hand() -> None:
    assert train_step.loss_difference("fedavg", [0.5, 4.0], [0.500002, 4.00002]) == pytest.approx(5e-6, rel=1e-3)
    with pytest.raises(UserError, match="pilot: losses differ by 2.0e-05, expected at most 1e-05"):
        train_step.loss_difference("pilot", [0.5, 2.0], [0.50002, 2.0])
    with pytest.raises(UserError, match="differ by nan"):
        train_step.loss_difference("pilot", [0.5, math.nan], [0.5, 2.0])
