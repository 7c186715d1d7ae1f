"""All trials of all methods side by side: budgets are equal, and the best is marked."""

import csv
from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.io.atomic import write_json
from pilot.report.tables.tuning import write_tuning


def tuned(scenario: Path, method: str, losses: list[float], seed: int = 1000, **more: object) -> None:
    """A file as `pilot-bench tune` writes it."""
    trials = [
        {"learning_rates": {"text_adapter": 0.001 * 2**n, "connector": 0.001}, "validation_loss": loss, "clients": {}}
        for n, loss in enumerate(losses)
    ]
    write_json(scenario / "tuning" / f"{method}.json", {"method": method, "seed": seed, "trials": trials} | more)


def test_every_trial_is_listed_and_the_best_marked(tmp_path: Path) -> None:
    tuned(tmp_path, "fedavg", [2.0, 1.5, 1.5])
    tuned(tmp_path, "pilot", [0.5, 0.6, 0.7], options={"num_neighbors": 2})
    table, text = write_tuning(tmp_path)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["trial"], row["best"]) for row in rows] == [
        ("pilot", "0", "True"), ("pilot", "1", "False"), ("pilot", "2", "False"),
        ("fedavg", "0", "False"), ("fedavg", "1", "True"), ("fedavg", "2", "False"),
    ]  # fmt: skip
    assert (rows[1]["text_adapter"], rows[1]["validation_loss"]) == ("0.002000", "0.600000")
    assert (rows[0]["options"], rows[3]["options"]) == ('{"num_neighbors": 2}', "")
    assert "**0.5000**" in text.read_text() and "Every method: 3 trials" in text.read_text()


def test_chosen_methods_only(tmp_path: Path) -> None:
    tuned(tmp_path, "fedavg", [2.0])
    tuned(tmp_path, "pilot", [2.0, 1.0])
    table, _ = write_tuning(tmp_path, ["fedavg"])
    assert len(table.read_text().splitlines()) == 2
    with pytest.raises(UserError, match="no fedprox.json. Run `pilot-bench tune .*snakemake --cores all tuning"):
        write_tuning(tmp_path, ["fedavg", "fedprox"])


def test_unequal_budgets_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tuned method"):
        write_tuning(tmp_path)
    tuned(tmp_path, "fedavg", [2.0])
    tuned(tmp_path, "pilot", [2.0, 1.0])
    with pytest.raises(UserError, match="numbers of trials differ: pilot 2, fedavg 1. Methods get equal budgets"):
        write_tuning(tmp_path)
    tuned(tmp_path, "pilot", [2.0], seed=7)
    with pytest.raises(UserError, match="tuning seeds differ: pilot 7, fedavg 1000"):
        write_tuning(tmp_path)
    assert not (tmp_path / "tuning" / "tuning.csv").exists()
