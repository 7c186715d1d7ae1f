"""Changes between two results as a table, Markdown, CSV or JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pilot.errors import UserError
from pilot.report.compare.change_causes import Cause
from pilot.report.compare.changes import NO_ANSWERS, ChangeRow, Changes, CostChange
from pilot.report.numbers.statistics import LEVEL
from pilot.report.tables.render import DIGITS, amount, column_names, markdown_table, pipe, rounded, rows_to_csv

_COSTS = ("megabytes", "trainable_parameters", "wall_seconds")
_VERDICTS = ("equal", "within noise", "better", "worse", "scored differently", "not compared")


def as_text(changes: Changes, form: str) -> str:
    """Format the changes as one of the formats of `compare`.

    Raises:
        UserError: LaTeX, which is not supported for changes.
    """
    if form == "latex":
        raise UserError("--format latex: not for changes. Expected table, markdown, csv or json, or --side-by-side.")
    if form == "json":
        return _json(changes)
    if form == "csv":
        return _csv(changes)
    return _markdown(changes, padded=form == "table")


def summary(changes: Changes) -> str:
    """Return a sentence with the number of rows per verdict."""
    counts = [(sum(row.verdict == verdict for row in changes.rows), verdict) for verdict in _VERDICTS]
    said = ", ".join(f"{count} {verdict}" for count, verdict in counts if count)
    changed = "Something changed beyond noise" if changes.changed else "Nothing changed beyond noise"
    return f"{changed}: {said}."


def _markdown(changes: Changes, *, padded: bool) -> str:
    settings = {(row.profile, row.scenario) for row in changes.rows}
    several = len(settings) > 1
    out = [f"## What changed from {changes.old} to {changes.new}", ""]
    out += [] if several else [f"{scenario}, profile {profile}\n" for profile, scenario in settings]
    out += _table(_titles(several), [_cells(row, several) for row in changes.rows], 3 + several, padded)
    out += ["", summary(changes), "", "### Cost", ""]
    names = ["method", "MB", "trainable parameters", "wall seconds"]
    lines = [_cost(change, several) for change in changes.costs]
    out += _table(names, lines, 1, padded)
    out += ["", "### Other differences", "", *(f"- {_cause(cause)}" for cause in changes.causes)]
    out += [] if changes.causes else ["- None: versions, digests, budgets and settings are the same."]
    out += [f"- Only in {changes.old}: {name}" for name in changes.only_old]
    out += [f"- Only in {changes.new}: {name}" for name in changes.only_new]
    return "\n".join([*out, "", *(f"- {note}" for note in notes(changes))]) + "\n"


def notes(changes: Changes) -> list[str]:
    """Return the notes below the table: values, tests, wall times, and rows that were not compared."""
    tests = sum(row.p_value is not None for row in changes.rows)
    out = [
        "Primary metrics, personalised, means over clients and the seeds that both sides have; in brackets the 95 % "
        "interval of the difference (hierarchical bootstrap over seeds, clients and images of the paired scores).",
        f"p: paired permutation over images, Holm-corrected over the {tests} rows that were tested. better, worse: "
        f"p < {LEVEL} and the interval excludes 0. equal: the same answers, byte for byte. scored differently: the "
        "same answers with other scores.",
        "Wall time depends on the load of the machines and is not tested.",
    ]
    if any(row.num_seeds == 1 and row.p_value is not None for row in changes.rows):
        out.append("Rows of one seed: the interval covers clients and images only, not the variation over seeds.")
    if any(row.reason == NO_ANSWERS for row in changes.rows):
        out.append(
            "A side has scores without answers (`pilot-bench pack` keeps answers with --everything): a row is equal "
            "where all scores by example are; `scored differently` cannot be told."
        )
    odd = [row for row in changes.rows if row.reason not in ("", NO_ANSWERS)]
    if reasons := {f"{row.method}, {row.task}: {row.reason}" for row in odd}:
        out.append("Not compared: " + "; ".join(sorted(reasons)) + ".")
    return out


def _titles(several: bool) -> list[str]:
    names = ["method", "task", "metric", "seeds", "old", "new", "difference", "95 % interval", "p", "verdict"]
    return ["scenario", *names] if several else names


def _cells(row: ChangeRow, several: bool) -> list[str]:
    ends = "" if row.ci_low is None or row.ci_high is None else f"[{row.ci_low:+.{DIGITS}f}, {row.ci_high:+.{DIGITS}f}]"
    p = "" if row.p_holm is None else "< 0.001" if row.p_holm < 10**-DIGITS else f"{row.p_holm:.{DIGITS}f}"
    form = f".{DIGITS}f"
    values = [amount(row.old, form), amount(row.new, form), amount(row.difference, f"+{form}"), ends, p, row.verdict]
    start = [row.method, row.task, row.metric, str(row.num_seeds)]
    return [*([f"{row.profile}/{row.scenario}"] if several else []), *start, *values]


def _cost(change: CostChange, several: bool) -> list[str]:
    name = f"{change.profile}/{change.scenario}: {change.method}" if several else change.method
    pairs = [(getattr(change.old, quantity), getattr(change.new, quantity)) for quantity in _COSTS]
    return [name, *(_arrow(old, new, form) for (old, new), form in zip(pairs, (".2f", ",.0f", ".1f"), strict=True))]


def _arrow(old: float | None, new: float | None, form: str) -> str:
    """Format two values: `43.20` if they are equal, else `43.20 → 40.10 (-7.2 %)`."""
    if old == new:
        return amount(old, form)
    share = f" ({new / old - 1:+.1%})".replace("%", " %") if old and new is not None else ""
    return f"{amount(old, form)} → {amount(new, form)}{share}"


def _cause(cause: Cause) -> str:
    values = f"{cause.old} → {cause.new}" if cause.old or cause.new else "several values"
    return f"{cause.what}: {values}; {', '.join(cause.methods) or 'all methods'}."


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]], left: int, padded: bool) -> list[str]:
    """Format a Markdown table, with `left` left-aligned columns; `padded` aligns the columns in plain text too."""
    if not padded:
        return markdown_table(titles, lines, left)
    widths = [max(len(cell) for cell in column) for column in zip(titles, *lines, strict=True)]
    sides = ["<"] * left + [">"] * (len(titles) - left)
    rows = [[f"{c:{side}{w}}" for c, side, w in zip(line, sides, widths, strict=True)] for line in (titles, *lines)]
    rule = ["-" * width if side == "<" else "-" * (width - 1) + ":" for side, width in zip(sides, widths, strict=True)]
    return [pipe(rows[0]), pipe(rule), *(pipe(row) for row in rows[1:])]


def _csv(changes: Changes) -> str:
    costs = {(each.profile, each.scenario, each.method): each for each in changes.costs}
    rows = []
    for row in changes.rows:
        cost = costs[row.profile, row.scenario, row.method]
        sides = (("old", cost.old), ("new", cost.new))
        more = {f"{side}_{name}": getattr(values, name) for name in _COSTS for side, values in sides}
        rows.append(asdict(row) | more)
    names = [*column_names(ChangeRow), *(f"{side}_{name}" for name in _COSTS for side in ("old", "new"))]
    return rows_to_csv(names, rows)


def _json(changes: Changes) -> str:
    value: dict[str, Any] = asdict(changes) | {"changed": changes.changed, "notes": notes(changes)}
    return json.dumps(rounded(value), sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
