"""Tables and figure of a scenario's faults: `faults/tables/`, `faults/figures/`. Equal results give equal bytes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pilot.config.federation import FederationConfig
from pilot.io.atomic import write_text
from pilot.io.layout import FAULTS
from pilot.report.numbers.faults import FaultRow, FaultTable, describe, fault_rows, load_faults
from pilot.report.numbers.incidents import exclusions
from pilot.report.numbers.load import Task
from pilot.report.plots import faults as plot
from pilot.report.plots.style import save_pages
from pilot.report.tables.render import DIGITS, column_names, markdown_table, to_csv


def write_faults(scenario_dir: Path, paper: bool = False) -> list[Path]:
    """Write `faults.csv`, `faults.md` and the figure `faults`, for paper too if `paper` is set; return their paths.

    Raises:
        UserError: see `pilot.report.numbers.faults.load_faults`.
    """
    table = load_faults(scenario_dir)
    rows = fault_rows(table)
    folder = scenario_dir / FAULTS
    texts = {"faults.csv": to_csv(rows, column_names(FaultRow)), "faults.md": markdown(table, rows)}
    for name, text in texts.items():
        write_text(folder / "tables" / name, text)
    sheets = folder / "paper" if paper else None
    figures = save_pages(partial(plot.draw, table, rows), folder / "figures", "faults", sheets)
    return [*(folder / "tables" / name for name in texts), *figures]


def markdown(table: FaultTable, rows: Sequence[FaultRow]) -> str:
    """Format a table of faults x methods per task on its primary metric, then the incident counts, then notes."""
    out = [f"## {table.scenario}: quality lost by faults", ""]
    for task in table.tasks:
        out += [f"### {task.name}, {task.metric}", "", *_quality(table, rows, task), ""]
    out += ["### Incidents", "", *_counts(table, rows), "", *(f"- {note}" for note in _notes(table))]
    return "\n".join(out) + "\n"


def cell(row: FaultRow) -> str:
    """Format a row as `0.803 → 0.780 (2.9 % lost)`, or as its status if it has no values."""
    if row.lost is None:
        return row.status
    ends = f"{row.value_without:.{DIGITS}f} → {row.value_with:.{DIGITS}f}"
    if row.lost_relative is None:
        return ends
    return f"{ends} ({abs(100 * row.lost_relative):.1f} % {'gained' if row.lost < 0 else 'lost'})"


def _quality(table: FaultTable, rows: Sequence[FaultRow], task: Task) -> list[str]:
    found = {(row.fault, row.method): cell(row) for row in rows if (row.task, row.metric) == (task.name, task.metric)}
    lines = [[fault, *(found.get((fault, name), "unavailable") for name in table.methods)] for fault in table.settings]
    return markdown_table(["fault", *table.methods], lines)


def _counts(table: FaultTable, rows: Sequence[FaultRow]) -> list[str]:
    lines = []
    for fault, settings in table.settings.items():
        first = {row.method: row for row in reversed(rows) if row.fault == fault}
        counts = [
            "missing"
            if first[method].absences is None
            else f"{first[method].absences} / {first[method].excluded_updates} / {first[method].skipped_rounds}"
            for method in table.methods
        ]
        lines.append([fault, describe(settings), *counts])
    return markdown_table(["fault", "settings", *table.methods], lines, left=2)


def _notes(table: FaultTable) -> list[str]:
    seeds = ", ".join(map(str, table.seeds))
    notes = [
        "Cells: value without the fault → value with it (share of the former that is lost or gained). Both are means "
        "over the task's clients that are not faulty themselves, each client's model on the task's test set "
        "(personalised); faults.csv has every metric, the absolute differences and, as lost_all_clients, the "
        "difference with the faulty clients' models among those averaged.",
        f"Seeds: {seeds}. "
        + ("One seed: " if len(table.seeds) == 1 else "")
        + "a difference within the spread over seeds (the standard deviations in tables/main.md) is no evidence of a "
        "loss or a gain.",
        "Incidents: absences of clients (counted per round) / updates that the guard excluded (per phase; Pilot "
        "has two in the first round) / rounds that were skipped for lack of a quorum, in all rounds and seeds.",
    ]
    if table.ordinary_settings != FederationConfig():
        notes.append(f"Runs without a fault have these settings: {describe(table.ordinary_settings)}.")
    if any(settings.defence != table.ordinary_settings.defence for settings in table.settings.values()):
        notes.append(
            "Where the settings name a defence, the run without the fault does not have it: the loss "
            "includes the cost of the defence."
        )
    if missing := [f"{m} with {f}" for f in table.settings for m in table.methods if (f, m) not in table.pairs]:
        notes.append(f"Missing (no such run): {'; '.join(missing)}.")
    for (fault, method), pairs in table.pairs.items():
        for pair in pairs:
            if lines := exclusions(pair.faulty):
                notes.append(f"Excluded with {fault}, {method}, seed {pair.faulty.seed}: {'; '.join(lines)}.")
    return notes
