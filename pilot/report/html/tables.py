"""Tables of the report: how clients differ, targets, the unseen, conditions, forgetting, and what messages reveal."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pilot.io.layout import PRIVACY
from pilot.report.numbers.cross_task import QUANTITIES
from pilot.report.numbers.curves import REACHED
from pilot.report.numbers.statistics import LEVEL
from pilot.report.plots.style import Source

Table = dict[str, Any]
"""`titles`, and `lines` of texts."""


def page_tables(source: Source) -> dict[str, Table]:
    """Return the tables of a report by name; those without lines are not shown."""
    return {
        "fairness": _fairness(source),
        "targets": _targets(source),
        "unseen": _unseen(source),
        "conditions": _conditions(source),
        "forgetting": _forgetting(source),
        "privacy": privacy_table(source.scenario_dir),
    }


def privacy_table(scenario_dir: Path) -> Table:
    """Return what attacks on clients' own messages reach, by method and attack: the last setting of each attack."""
    path = scenario_dir / PRIVACY / "tables" / "privacy.csv"
    if not path.is_file():
        return {"titles": [], "lines": []}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if row["observation"] == "own" and not row["metric"].startswith("TPR")
        ]
    last = {(row["method"], row["profile"], row["attack"]): row for row in rows}
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    lines = [
        [method, profile, *(_reached_by(last.get((method, profile, attack))) for attack in attacks)]
        for method, profile in dict.fromkeys((row["method"], row["profile"]) for row in rows)
    ]
    return {"titles": ["method", "profile", *attacks], "lines": lines}


def _reached_by(row: Mapping[str, str] | None) -> str:
    """Return a value with its interval and setting, or why there is none."""
    if row is None:
        return "-"
    if not row["value"]:
        return row["status"].replace("_", " ")
    value, low, high = (f"{float(row[name]):.2f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}], {row['setting']}"


def _fairness(source: Source) -> Table:
    """Return titles and lines of the table of fairness, methods by quantities."""
    table, rows = source.fairness, source.fairness.to_dict("records")
    lines = [
        [label, *(_with_interval(found) for found in (_row(rows, method=label, quantity=q) for q in QUANTITIES))]
        for label in source.methods if (table.method == label).any()
    ]  # fmt: skip
    return {"titles": ["method", *QUANTITIES], "lines": lines}


def _targets(source: Source) -> Table:
    """Return titles and lines of the table of targets: methods by tasks, the first round and MB that reach each."""
    rows, lines = source.targets.to_dict("records"), []
    for label in source.methods:
        cells = [_row(rows, method=label, task=task.name) for task in source.tasks]
        if any(cell is not None for cell in cells):
            lines.append([label, *(_reached(cell) for cell in cells)])
    goals = {row["task"]: row["target"] for row in rows if row["target"] == row["target"]}
    titles = [f"{task.name} >= {goals[task.name]:.3f}" if task.name in goals else task.name for task in source.tasks]
    return {"titles": ["method", *titles], "lines": lines if goals else []}


def _unseen(source: Source) -> Table:
    """Return titles and lines of the table of unseen clients and questions; personalised protocol."""
    table = source.unseen[source.unseen.protocol == "personalised"]
    rows, tasks, lines = table.to_dict("records"), [task.name for task in source.tasks], []
    for kind in dict.fromkeys(table.unseen):
        for label in source.methods:
            cells = [_row(rows, method=label, task=task, unseen=kind) for task in tasks]
            if any(cell is not None for cell in cells):
                lines.append([label, kind, *(_with_difference(cell) for cell in cells)])
    return {"titles": ["method", "unseen", *tasks], "lines": lines}


def _conditions(source: Source) -> Table:
    """Return titles and lines of the table of imaging conditions: whose they are, and methods, by tasks."""
    table, rows = source.conditions, source.conditions.to_dict("records")
    tasks, lines = [task.name for task in source.tasks], []
    for seen in dict.fromkeys(table.seen):
        for label in source.methods:
            cells = [_row(rows, method=label, task=task, seen=seen) for task in tasks]
            if any(cell is not None for cell in cells):
                marks = ["*" if cell is not None and cell["p_holm"] < LEVEL else "" for cell in cells]
                texts = [_with_interval(cell) + mark for cell, mark in zip(cells, marks, strict=True)]
                lines.append([label, seen, *(a + _change(b) for a, b in zip(texts, cells, strict=True))])
    return {"titles": ["method", "conditions", *tasks], "lines": lines}


def _forgetting(source: Source) -> Table:
    """Return titles and lines of the table of what the backbone could do before, methods by tasks."""
    table, rows = source.forgetting, source.forgetting.to_dict("records")
    names = list(dict.fromkeys(zip(table.task, table.metric, strict=True)))
    lines = [
        [label, *(_with_difference(_row(rows, method=label, task=task, metric=metric)) for task, metric in names)]
        for label in source.methods if (table.method == label).any()
    ]  # fmt: skip
    return {"titles": ["method", *(f"{task} {metric}" for task, metric in names)], "lines": lines}


def _with_difference(row: Mapping[Any, Any] | None) -> str:
    return _with_interval(row) + _change(row)


def _change(row: Mapping[Any, Any] | None) -> str:
    """Return a row's difference in brackets; nothing if it has none."""
    return "" if row is None or row["difference"] != row["difference"] else f" ({row['difference']:+.3f})"


def _row(rows: Sequence[Mapping[Any, Any]], **wanted: str) -> Mapping[Any, Any] | None:
    """Return the first row with these values."""
    return next((row for row in rows if all(row[k] == v for k, v in wanted.items())), None)


def _with_interval(row: Mapping[Any, Any] | None) -> str:
    if row is None or row["mean"] != row["mean"]:
        return "-"
    ends = f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]" if row["ci_low"] == row["ci_low"] else ""
    return f"{row['mean']:.3f}{ends}"


def _reached(row: Mapping[Any, Any] | None) -> str:
    if row is None:
        return "-"
    if row["status"] != REACHED:
        return str(row["status"])
    return f"round {row['round']:.0f}, {row['bytes'] / 1e6:.1f} MB"
