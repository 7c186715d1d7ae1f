"""Audits of the small scenario (docs/privacy-audit.md): attacks succeed where theory says so, and controls do not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pilot.cli.main import app
from pilot.errors import UserError
from pilot.evaluation.audit.run import audit_run
from pilot.federation.training import train_run
from pilot.report.tables.privacy import write_privacy

from ...small import Small, quiet

pytestmark = pytest.mark.slow


def folder_of(small: Small, target: Path) -> Path:
    """A scenario folder with the small scenario's data and no runs."""
    target.mkdir(parents=True)
    for name in ("data", "partition", "features"):
        (target / name).symlink_to(small.folder / name)
    return target


def trained(small: Small, folder: Path, method: str, *, keep: bool = True) -> Path:
    """A run with canaries that keeps the messages of all rounds."""
    spec = small.spec(method)
    scenario = spec.scenario.model_copy(update={"canaries": 2})
    profile = spec.profile.model_copy(update={"keep_messages": (1, "last") if keep else ()})
    run = folder / "runs" / method / "seed0"
    train_run(replace(spec, scenario=scenario, profile=profile), small.folder, run, True, quiet)
    return run


def findings(path: Path) -> list[dict[str, Any]]:
    """What `audit_run` wrote."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["findings"]
    return found


def value(rows: list[dict[str, Any]], attack: str, setting: str, observation: str = "own") -> dict[str, Any]:
    """The first row of an attack in a setting."""
    wanted = {"attack": attack, "setting": setting, "observation": observation}
    return next(row for row in rows if wanted.items() <= row.items())


@pytest.mark.exhaustive
def test_audits_and_their_table(small: Small, tmp_path: Path) -> None:
    folder = folder_of(small, tmp_path / "results/tiny/small")
    run = trained(small, folder, "fedavg")
    rows = findings(audit_run(run))
    one, eight = "one step of descent, batch 1", "one step of descent, batch 8"
    assert value(rows, "image span", one)["value"] > 0.95
    assert value(rows, "image span, exact", one)["value"] == 1
    assert value(rows, "image span, exact", eight)["value"] == 0.5, "200 tokens span all 128 directions"
    assert value(rows, "word span", "one step, rank 128, batch 1")["value"] > 0.95
    assert value(rows, "closed answers", one)["value"] == 1
    silent = [value(rows, "image span", f"{one}, noise 1")]
    silent += [value(rows, "image span", one, name) for name in ("another client", "random")]
    assert all(row["low"] <= 0.5 <= row["high"] for row in silent)
    assert value(rows, "canaries", "round 2")["count"] == 4, "two clients with two each"
    first = (run / "audit/findings.json").read_bytes()
    audit_run(run)
    assert (run / "audit/findings.json").read_bytes() == first

    text_only = findings(audit_run(trained(small, folder, "fedit")))
    assert value(text_only, "image span", "round 2")["status"] == "not_applicable"
    assert value(text_only, "membership", "round 2")["status"] == "completed"
    nothing = findings(audit_run(trained(small, folder, "local")))
    assert [row["reason"] for row in nothing] == ["nothing leaves a client"]

    written = write_privacy([folder])
    assert {path.name for path in written} == {"privacy.csv", "privacy.md", "privacy.png", "privacy.pdf"}
    csv = written[0].read_text()
    assert "small,tiny,fedavg,,image span," in csv and "small,tiny,local,,all,all,own,,1,,,,,not_applicable" in csv
    done = CliRunner().invoke(app, ["privacy", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0 and written[0].read_text() == csv


@pytest.mark.exhaustive
def test_a_run_without_messages(small: Small, tmp_path: Path) -> None:
    folder = folder_of(small, tmp_path / "results/tiny/small")
    run = trained(small, folder, "fedavg", keep=False)
    with pytest.raises(UserError, match="no messages were kept. Train the run with a profile that keeps some"):
        audit_run(run)
    with pytest.raises(UserError, match="no audited runs. Run `pilot-bench audit`"):
        write_privacy([folder])
