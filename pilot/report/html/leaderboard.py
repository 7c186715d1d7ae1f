"""Rows of the leaderboard, from `tables/main.csv`, `tables/leaderboard.json`, and the ledgers and timing of runs."""

from typing import Any

import pandas

from pilot.errors import UserError
from pilot.evaluation.metrics import metric_bounds
from pilot.io.atomic import damaged, read_json
from pilot.report.numbers.cost import summarise
from pilot.report.numbers.summary import Group, group_runs
from pilot.report.plots.style import Source


def read_grid(source: Source) -> dict[str, Any]:
    """Read the scenario's headline grid from `tables/leaderboard.json`.

    Raises:
        UserError: the file is missing or damaged, or has no rows of a method in the report.
    """
    path = source.scenario_dir / "tables" / "leaderboard.json"
    if not path.exists():
        raise UserError(f"{path} is missing. Write the tables first: pilot-bench tables {source.scenario_dir}")
    scenarios = read_json(path, {"scenarios": list})["scenarios"]
    try:
        grid: dict[str, Any] = scenarios[0]
        shown = {row["method"] for row in grid["rows"]}
    except (IndexError, KeyError, TypeError) as error:
        raise damaged(path, f"no rows of methods: {error!r}") from error
    if lacking := [label for label in source.methods if label not in shown]:
        raise UserError(
            f"{path}: no rows of {', '.join(lacking)}, which have runs. "
            f"Write the tables again: pilot-bench tables {source.scenario_dir}"
        )
    return grid


def leaderboard(source: Source, grid: dict[str, Any]) -> dict[str, Any]:
    """Build the leaderboard's data: tasks with their metrics, a value per cell, marks and cost per method.

    A cell is `[mean, std, ci_low, ci_high, status]` under `task|metric|protocol`; missing values are None.
    """
    groups = {group.label: group for group in group_runs(source.runs)}
    marks: dict[str, dict[str, Any]] = {}
    for row in grid["rows"]:
        marks.setdefault(row["method"], {})[row["task"]] = _mark(row)
    main = source.main
    return {
        "tasks": [_task(task["name"], grid, main) for task in grid["tasks"]],
        "baseline": grid["baseline"],
        "rows": [
            {
                "method": label,
                "reference": source.is_reference(label),
                "seeds": len(groups[label].runs),
                "cells": _cells(main[main.method == label]),
                "marks": marks.get(label, {}),
                **costs(groups[label]),
            }
            for label in source.methods
        ],
    }


def costs(group: Group) -> dict[str, float | None]:
    """Average megabytes, trainable parameters, training TFLOPs and wall seconds of a method over its seeds."""
    summary = summarise(group)
    return {
        "megabytes": _rounded(summary.megabytes),
        "parameters": _rounded(summary.trainable_parameters),
        "teraflops": _rounded(summary.teraflops),
        "seconds": _rounded(summary.wall_seconds),
    }


def _task(name: str, grid: dict[str, Any], main: pandas.DataFrame) -> dict[str, Any]:
    metrics = list(dict.fromkeys(main[main.task == name].metric))
    primary = next(row["metric"] for row in grid["rows"] if row["task"] == name)
    kind = next(task["kind"] for task in grid["tasks"] if task["name"] == name)
    limits = {metric: metric_bounds(metric)[1] for metric in metrics}
    return {"name": name, "kind": kind, "primary": primary, "metrics": metrics, "largest": limits}


def _cells(rows: pandas.DataFrame) -> dict[str, list[Any]]:
    return {
        f"{row.task}|{row.metric}|{row.protocol}": [
            *(_known(value) for value in (row.mean, row.std, row.ci_low, row.ci_high)),
            row.status,
        ]
        for row in list[Any](rows.itertuples(index=False))
    }


def _mark(row: dict[str, Any]) -> dict[str, Any]:
    """Return the marks of a cell: best, not different from the best, test against the baseline, parse failure rate."""
    return {
        **{"best": row["best"], "close": row["not_significantly_different_from_best"]},
        **{"p": row["p_holm"], "difference": row["difference_to_baseline"], "fails": row["parse_failure_rate"]},
    }


def _known(value: float) -> float | None:
    return None if value != value else round(float(value), 6)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
