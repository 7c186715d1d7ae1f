"""Fresh runs against reference tables."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilot.cli.main import app
from pilot.errors import UserError
from pilot.report.compare import reference
from pilot.report.compare.reference import against_reference, agrees, as_text

CHANGES = {  # of the reference's mean and interval, beside the value here
    ("pilot", "scene-vqa"): ("agrees", +0.01, -0.05, +0.05),
    ("pilot", "scene-caption"): ("differs", +0.01, +0.005, +0.05),
    ("fedavg", "scene-vqa"): ("differs", -0.5, -0.6, -0.1),
}


@pytest.fixture
def fresh(scenario_copy: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A scenario's folder, and references that are its own tables but for three cells and one method."""
    target = tmp_path / "reference" / "embedded" / "scenario2" / "main.csv"
    target.parent.mkdir(parents=True)
    with (scenario_copy / "tables/main.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if row["method"] != "fedmoe"]
    for row in kept:
        change = CHANGES.get((row["method"], row["task"]))
        if change and row["protocol"] == "personalised" and row["mean"]:
            here = float(row["mean"])
            row |= {name: str(here + by) for name, by in zip(("mean", "ci_low", "ci_high"), change[1:], strict=True)}
    kept.append({**kept[0], "method": "scaffold", "protocol": "personalised"})
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    return scenario_copy, tmp_path / "reference"


def test_every_verdict(fresh: tuple[Path, Path]) -> None:
    rows = {(row.method, row.task): row for row in against_reference(*fresh)}
    for key, change in CHANGES.items():
        assert rows[key].verdict == change[0], key
    assert rows["fedprox", "scene-vqa"].verdict == "equal"
    assert ("fedmoe", "scene-vqa") not in rows, "only methods of the reference are read, others may be unfinished"
    (missing,) = (row for row in rows.values() if row.method == "scaffold")
    assert missing.verdict == "not here" and missing.here is None
    assert not agrees(list(rows.values()))
    assert agrees([row for row in rows.values() if row.verdict != "differs"])
    assert not agrees([missing]), "nothing was compared"


def test_without_an_interval_means_have_to_be_equal() -> None:
    assert reference._verdict(False, 0.5, None, None, 0.5) == "equal"
    assert reference._verdict(False, 0.5, None, None, 0.500001) == "differs"
    assert reference._verdict(False, 0.5, 0.4, 0.6, 0.6) == "agrees"
    assert reference._verdict(False, 0.5, 0.4, 0.6, None) == "not here"
    assert reference._verdict(True, None, None, None, 0.5) == "not in the reference"


def test_methods_that_the_reference_lacks_are_shown_where_there_are_no_others(fresh: tuple[Path, Path]) -> None:
    folder, tables = fresh
    for run in (folder / "runs").iterdir():
        if run.name != "fedmoe":
            shutil.rmtree(run)
    rows = against_reference(folder, tables)
    assert {row.verdict for row in rows if row.method == "fedmoe"} == {"not in the reference"}
    assert {row.verdict for row in rows if row.method != "fedmoe"} == {"not here"} and not agrees(rows)


def test_formats(fresh: tuple[Path, Path]) -> None:
    rows = against_reference(*fresh)
    assert "2 outside it" in as_text(rows, "table") and "| pilot | scene-vqa |" in as_text(rows, "markdown")
    assert len(as_text(rows, "csv").splitlines()) == len(rows) + 1 == len(json.loads(as_text(rows, "json"))) + 1
    with pytest.raises(UserError, match="not supported with --reference"):
        as_text(rows, "latex")


def test_unknown_scenario_names_the_known_ones(fresh: tuple[Path, Path]) -> None:
    folder, tables = fresh
    with pytest.raises(UserError, match=r"no reference tables of embedded/scenario3.*embedded/scenario2"):
        against_reference(folder.parent / "scenario3", tables)


def test_command(fresh: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, tables = fresh
    monkeypatch.setattr(reference.against_reference, "__defaults__", (tables,))
    result = CliRunner().invoke(app, ["compare", str(folder), "--reference"])
    assert result.exit_code == 1 and "2 outside it" in result.stdout
    with pytest.raises(UserError, match="one scenario folder, got 2"):
        CliRunner().invoke(app, ["compare", str(folder), str(folder), "--reference"], catch_exceptions=False)
