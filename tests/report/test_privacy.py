"""Tables of audits: means over seeds, the widest ends, statuses, epsilon, and what the report shows of them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pilot.errors import UserError
from pilot.report.html.tables import privacy_table
from pilot.report.tables.privacy import write_privacy


def finding(attack: str, setting: str, value: float | None, **changes: Any) -> dict[str, Any]:
    """A row of `findings.json` with an interval of 0.1 to either side."""
    ends = {"low": None if value is None else value - 0.1, "high": None if value is None else value + 0.1}
    row = {"attack": attack, "setting": setting, "observation": "own", "metric": "AUC", "value": value, "count": 9}
    return {**row, **ends, "chance": 0.5, "status": "completed", "reason": "", **changes}


def write_run(
    folder: Path, method: str, seed: int, findings: list[dict[str, Any]], epsilon: float | None = None
) -> None:
    """The files of an audited run that tables read."""
    run = folder / "runs" / method / f"seed{seed}"
    (run / "audit").mkdir(parents=True)
    config = {"scenario": "small", "profile": folder.parent.name, "method": method, "seed": seed}
    (run / "config.json").write_text(json.dumps(config))
    (run / "ledger.json").write_text(json.dumps({"totals": {"bytes_up": 2_500_000}}))
    (run / "audit/findings.json").write_text(json.dumps({"findings": findings}))
    if epsilon is not None:
        (run / "privacy.json").write_text(json.dumps({"epsilon": {"add-or-remove-one": epsilon}}))


def test_rows_are_means_over_seeds_with_the_widest_ends(tmp_path: Path) -> None:
    plain, noisy = tmp_path / "plain/small", tmp_path / "noisy/small"
    for seed, value in enumerate((0.6, 0.8)):
        images = finding("image span", "round 2", value)
        control = finding("image span", "round 2", 0.5, observation="another client")
        words = finding("word span", "one step after training, rank 8, batch 1", value if seed else None)
        if not seed:
            words |= {"status": "failed", "reason": "too few samples"}
        write_run(plain, "fedavg", seed, [finding("image span", "round 1", 0.9), images, control, words])
    write_run(noisy, "fedavg", 0, [finding("image span", "round 2", 0.5)], epsilon=8.0)

    table, markdown, *_ = write_privacy([plain, noisy])
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    last = next(row for row in rows if (row["setting"], row["observation"]) == ("round 2", "own"))
    numbers = [float(last[name]) for name in ("value", "low", "high")]
    assert numbers == pytest.approx([0.7, 0.5, 0.9]) and (last["num_seeds"], last["epsilon"]) == ("2", "")
    words_row = next(row for row in rows if row["attack"] == "word span")
    assert (words_row["value"], words_row["status"], words_row["reason"]) == ("", "failed", "too few samples")
    assert rows[-1]["epsilon"] == "8.000000" and rows[-1]["profile"] == "noisy"
    text = markdown.read_text()
    assert "| fedavg | plain | 2 | none | 2.5 | 0.70 [0.50, 0.90]; 0.50 | failed | - |" in text
    assert "| fedavg | noisy | 1 | 8 | 2.5 | 0.50 [0.40, 0.60] |" in text

    shown = privacy_table(plain)
    assert shown["titles"] == ["method", "profile", "image span", "word span"]
    assert shown["lines"][0] == ["fedavg", "plain", "0.70 [0.50, 0.90], round 2", "failed"]
    assert shown["lines"][1][2:] == ["0.50 [0.40, 0.60], round 2", "-"]


def test_folders_of_two_scenarios_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "plain/small", "fedavg", 0, [finding("membership", "round 2", 0.5)])
    write_run(tmp_path / "plain/other", "fedavg", 0, [finding("membership", "round 2", 0.5)])
    config = tmp_path / "plain/other/runs/fedavg/seed0/config.json"
    config.write_text(config.read_text().replace("small", "other"))
    with pytest.raises(UserError, match="folders of several scenarios: other, small. Give folders of one."):
        write_privacy([tmp_path / "plain/small", tmp_path / "plain/other"])
