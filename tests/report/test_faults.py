"""The table of faults: losses by hand, what is counted, and what is refused or shown as missing."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pilot.config.federation import FederationConfig
from pilot.errors import UserError
from pilot.io.atomic import read_json, read_jsonl, write_json, write_jsonl
from pilot.io.layout import run_folder, scenario_folder
from pilot.report.compare.side_by_side import compare
from pilot.report.numbers.faults import describe, fault_rows, load_faults
from pilot.report.numbers.incidents import format_rounds
from pilot.report.numbers.load import load_runs
from pilot.report.plots import faults as plot
from pilot.report.plots.page import COLUMN, PAPER, Page
from pilot.report.tables.fault import write_faults
from pilot.report.tables.write import write_tables

from ..marks import few_of
from .legible import assert_legible
from .synthetic import build_run, build_scenario

pytestmark = pytest.mark.slow

SIGN_FLIP = {"attacks": [{"kind": "sign_flip", "clients": [1]}]}
DROPOUT = {"participation": {"dropout": 0.5}}
REASON = "text_adapter.x: not finite"


def set_values(run: Path, metric: str, values: dict[int, float | None]) -> None:
    """Replace a metric's personalised values by client."""
    metrics = read_json(run / "eval" / "metrics.json")
    for entry in metrics["entries"]:
        if (entry["metric"], entry["protocol"]) == (metric, "personalised") and entry["client"] in values:
            value = values[entry["client"]]
            entry |= {"value": value, "status": "unavailable" if value is None else "ok"}
    write_json(run / "eval" / "metrics.json", metrics)


def add_fault(scenario: Path, fault: str, method: str, federation: dict[str, Any], **config: Any) -> Path:
    """A run with a fault."""
    folder = run_folder(scenario, method, 0, fault)
    return build_run(folder, method, 0, **({"profile_config": {"federation": federation}} | config))


def set_rounds(run: Path, **changes: Any) -> None:
    """Replace fields in round 2 of a run."""
    rows = [row | (changes if row["round"] == 2 else {}) for row in read_jsonl(run / "rounds.jsonl")]
    write_jsonl(run / "rounds.jsonl", rows)


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """fedavg with two faults, pilot with one; all exact matches are set."""
    scenario = build_scenario(tmp_path, methods=["fedavg", "pilot"], seeds=[0])
    for method in ("fedavg", "pilot"):
        set_values(run_folder(scenario, method, 0), "exact_match", {0: 0.8, 1: 0.6, 2: 0.4})
        run = add_fault(scenario, "sign-flip", method, SIGN_FLIP)
        set_values(run, "exact_match", {0: 0.5, 1: 0.0, 2: 0.4})
    run = add_fault(scenario, "dropout-50", "fedavg", DROPOUT)
    set_values(run, "exact_match", {0: 0.9, 1: 0.6, 2: 0.6})
    set_rounds(run, participation={"dropped": [0, 4], "late": [5], "unneeded": [7]}, skipped=True)
    return scenario


def table(scenario: Path, **where: str) -> list[dict[str, str]]:
    """Lines of `faults.csv` whose fields have the given values."""
    with (scenario / "faults/tables/faults.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if where.items() <= row.items()]


def test_losses_by_hand(faulty: Path) -> None:
    write_faults(faulty)
    (row,) = table(faulty, method="fedavg", fault="sign-flip", metric="exact_match")
    # Clients 0 and 2 are honest: (.8 + .4) / 2 = .6 without, (.5 + .4) / 2 = .45 with, .15 lost, a quarter of .6.
    # Over all three: .6 without and .3 with.
    assert (row["clients"], row["value_without"], row["value_with"]) == ("0 2", "0.600000", "0.450000")
    assert (row["lost"], row["lost_relative"], row["lost_all_clients"]) == ("0.150000", "0.250000", "0.300000")
    assert (row["num_seeds"], row["status"]) == ("1", "ok")
    (row,) = table(faulty, method="fedavg", fault="dropout-50", metric="exact_match")
    # Nobody is faulty: .6 without and .7 with; a gain is a negative loss.
    assert (row["clients"], row["lost"], row["lost_all_clients"]) == ("0 1 2", "-0.100000", "-0.100000")
    text = (faulty / "faults/tables/faults.md").read_text()
    assert "| sign-flip | 0.600 → 0.450 (25.0 % lost) | 0.600 → 0.450 (25.0 % lost) |" in text
    assert "| dropout-50 | missing | 0.600 → 0.700 (16.7 % gained) |" in text
    assert "| sign-flip | client 1: the change with its sign flipped | 0 / 0 / 0 | 0 / 0 / 0 |" in text
    assert "One seed" in text and "Missing (no such run): pilot with dropout-50." in text


def test_absences_exclusions_and_skipped_rounds_are_counted(faulty: Path) -> None:
    run = run_folder(faulty, "pilot", 0, "sign-flip")
    set_rounds(run, excluded=[{"client": 1, "reason": REASON}, {"client": 3, "reason": "late"}])
    write_faults(faulty)
    (row,) = table(faulty, method="fedavg", fault="dropout-50", metric="exact_match")
    # In round 2 clients 0 and 4 dropped out and 5 was late; 7 was not needed, which is no absence.
    assert (row["absences"], row["excluded_updates"], row["skipped_rounds"]) == ("3", "0", "1")
    (row,) = table(faulty, method="pilot", fault="sign-flip", metric="exact_match")
    assert (row["absences"], row["excluded_updates"], row["skipped_rounds"]) == ("0", "2", "0")
    (row,) = table(faulty, method="pilot", fault="dropout-50", metric="exact_match")
    counts = [row[name] for name in ("absences", "excluded_updates", "skipped_rounds", "value_with", "lost")]
    assert (row["status"], counts) == ("missing", [""] * 5)
    text = (faulty / "faults/tables/faults.md").read_text()
    assert f"Excluded with sign-flip, pilot, seed 0: client 1 in round 2 ({REASON}); client 3 in round 2" in text


def test_unavailable_is_not_zero(faulty: Path) -> None:
    set_values(run_folder(faulty, "pilot", 0, "sign-flip"), "exact_match", {2: None})
    write_faults(faulty)
    (row,) = table(faulty, method="pilot", fault="sign-flip", metric="exact_match")
    assert (row["value_with"], row["lost"], row["status"]) == ("", "", "unavailable")
    assert all(row["status"] in ("unavailable", "missing") for row in table(faulty, metric="SPICE"))
    assert "| sign-flip | unavailable |" in (faulty / "faults/tables/faults.md").read_text()
    # The value of the faulty client itself is not needed for the main figure.
    set_values(run_folder(faulty, "fedavg", 0, "sign-flip"), "exact_match", {1: None})
    write_faults(faulty)
    (row,) = table(faulty, method="fedavg", fault="sign-flip", metric="exact_match")
    assert (row["lost"], row["lost_all_clients"], row["status"]) == ("0.150000", "", "ok")


def test_nothing_lost_of_nothing_has_no_share(faulty: Path) -> None:
    set_values(run_folder(faulty, "pilot", 0), "exact_match", {0: 0.0, 2: 0.0})
    write_faults(faulty)
    (row,) = table(faulty, method="pilot", fault="sign-flip", metric="exact_match")
    assert (row["lost"], row["lost_relative"], row["status"]) == ("-0.450000", "", "ok")


def test_figure_and_tables_repeat_byte_for_byte(faulty: Path) -> None:
    paths = write_faults(faulty)
    assert [path.name for path in paths] == ["faults.csv", "faults.md", "faults.png", "faults.pdf"]
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_faults(faulty)] == before


def test_ordinary_tables_do_not_change(faulty: Path) -> None:
    write_tables(faulty)
    names = ("main.csv", "main.md", "per_client.csv", "cost.csv")
    with_faults = [(faulty / "tables" / name).read_bytes() for name in names]
    (faulty / "faults").rename(faulty.parent / "elsewhere")
    write_tables(faulty)
    assert [(faulty / "tables" / name).read_bytes() for name in names] == with_faults


def test_no_faults_and_no_counterpart_are_refused(faulty: Path) -> None:
    add_fault(faulty, "sign-flip", "fedprox", SIGN_FLIP)
    with pytest.raises(UserError, match="runs/fedprox/seed0: no run of the method without the fault"):
        load_faults(faulty)
    with pytest.raises(UserError, match="no runs with a fault.*--fault NAME"):
        load_faults(faulty / "runs")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hyperparameters": {"learning_rates": 1}}, "differ in more than the fault: hyperparameters"),
        ({"budget": {"rounds": 4}}, "budget rounds differs"),
        ({"profile_config": {"federation": DROPOUT}}, "`federation` settings differ"),
    ],
    ids=["hyperparameters", "budget", "fault"],
)
def test_runs_that_differ_in_more_than_the_fault_are_refused(
    faulty: Path, config: dict[str, Any], message: str
) -> None:
    add_fault(faulty, "sign-flip", "pilot", SIGN_FLIP, **config)
    with pytest.raises(UserError, match=message):
        load_faults(faulty)


def test_other_sources_are_refused(faulty: Path) -> None:
    config = run_folder(faulty, "pilot", 0, "sign-flip") / "config.json"
    values = read_json(config)
    write_json(config, values | {"digests": values["digests"] | {"source": "other"}})
    with pytest.raises(UserError, match="differ in more than the fault: source digest. Train and evaluate both again"):
        load_faults(faulty)


def test_settings_in_words() -> None:
    assert describe(FederationConfig()) == "none"
    settings = FederationConfig.model_validate(
        {
            "participation": {"dropout": 0.3, "quorum": 2},
            "attacks": [{"kind": "scale", "clients": [1, 4]}, {"kind": "nan", "clients": [2]}],
            "defence": {"aggregation": "median", "clip_norm": 2.0},
        }
    )
    assert describe(settings) == (
        "quorum 2; dropout 0.3; clients 1, 4: 10 times the change; client 2: a NaN in every tensor; "
        "aggregation median; clip_norm 2.0"
    )


def test_rounds_in_words() -> None:
    assert [format_rounds([3]), format_rounds([2, 1]), format_rounds([1, 2, 3, 5, 9, 8])] == [
        "round 3",
        "rounds 1-2",
        "rounds 1-3, 5, 8-9",
    ]


def test_folder_of_the_data(tmp_path: Path) -> None:
    scenario = tmp_path / "faults" / "scenario2"  # a profile may be called faults
    (scenario / "data").mkdir(parents=True)
    assert scenario_folder(run_folder(scenario, "pilot", 3)) == scenario
    assert scenario_folder(run_folder(scenario, "pilot", 3, "nan-client")) == scenario
    assert run_folder(scenario, "pilot", 3, "nan-client") == scenario / "faults/nan-client/runs/pilot/seed3"


def test_compare_names_the_fault(faulty: Path) -> None:
    fault = faulty / "faults/sign-flip/runs"
    text = compare([faulty / "runs/pilot", fault / "fedavg"], format="csv")
    assert text is not None
    assert {line.split(",")[1] for line in text.splitlines()[1:]} == {"pilot", "fedavg [sign-flip]"}
    both = load_runs([faulty / "runs/pilot", fault / "pilot"])
    assert [run.label for run in both] == ["pilot [scenario2]", "pilot [sign-flip]"]


def test_incidents_stand_below_the_main_table(tmp_path: Path) -> None:
    scenario = build_scenario(tmp_path, methods=["fedavg", "pilot"], seeds=[0, 1])
    write_tables(scenario)
    clean = (scenario / "tables" / "main.md").read_text()
    assert "Excluded" not in clean and "Skipped" not in clean
    set_rounds(scenario / "runs/pilot/seed1", excluded=[{"client": 4, "reason": REASON}], skipped=True)
    write_tables(scenario)
    text = (scenario / "tables" / "main.md").read_text()
    added = [
        f"- Excluded updates of pilot, seed 1: client 4 in round 2 ({REASON}).",
        "- Skipped by pilot, seed 1 (fewer usable updates than the quorum, so nothing changed): round 2.",
    ]
    assert [line for line in text.splitlines() if line not in clean.splitlines()] == added


def test_seeds_of_several_versions_are_named(tmp_path: Path) -> None:
    scenario = build_scenario(tmp_path, methods=["fedavg"], seeds=[0, 1, 2])
    path = scenario / "runs/fedavg/seed1/config.json"
    config = read_json(path)
    config["digests"]["source"] = "0123456789abcdef"
    write_json(path, config)
    write_tables(scenario)
    said = "- Seeds of fedavg are of several versions of the code (digest of its source): 0, 2 ("
    (note,) = [line for line in (scenario / "tables/main.md").read_text().splitlines() if line.startswith(said)]
    assert note.endswith("); 1 (01234567).")


@pytest.mark.parametrize("page", few_of([COLUMN], PAPER), ids=lambda page: page.name)
def test_figures_for_paper_are_legible(faulty: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        for method in ("fedavg", "pilot"):
            add_fault(faulty, f"fault-{number}", method, SIGN_FLIP)
    table = load_faults(faulty)
    assert_legible(partial(plot.draw, table, fault_rows(table)), page, monkeypatch)
    written = write_faults(faulty, paper=True)
    assert [path.name for path in written[-2:]] == ["faults-column.pdf", "faults-text.pdf"]
