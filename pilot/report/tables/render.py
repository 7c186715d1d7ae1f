"""The headline grid as Markdown, LaTeX (booktabs), CSV and JSON text."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from pilot.report.numbers.headline import Cell, Headline, Line, footnotes
from pilot.report.numbers.summary import MainRow

DIGITS = 3
ARROWS = {"up": " ↑", "down": " ↓", "": ""}
_LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}
_LATEX |= {
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "Δ": r"$\Delta$",
    ">=": r"$\geq$",
}
_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


def to_csv(rows: Sequence[Any], columns: Iterable[str]) -> str:
    """Format dataclass rows as CSV with fixed number formats: six decimals, an empty field for None."""
    names = list(columns)
    return rows_to_csv(names, [{name: getattr(row, name) for name in names} for row in rows])


def rows_to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Format mappings as CSV; floats have six decimals, so that equal results give equal bytes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_field(row[name]) for name in columns] for row in rows)
    return buffer.getvalue()


def column_names(row_type: type) -> list[str]:
    """Return the field names of a row dataclass in order: its CSV header."""
    return [field.name for field in fields(row_type)]


def number(row: MainRow | None, *, spread: bool = True) -> str:
    """Format a mean as `0.512 ± 0.010`, without the spread for one seed; its status or `-` if there is no value."""
    if row is None:
        return "-"
    if row.mean is None:
        return row.status
    text = f"{row.mean:.{DIGITS}f}"
    return f"{text} ± {row.std:.{DIGITS}f}" if spread and row.std is not None else text


def interval(row: MainRow | None) -> str:
    """Format an interval as `[0.480, 0.543]`; empty if there is none."""
    if row is None or row.ci_low is None or row.ci_high is None:
        return ""
    return f"[{row.ci_low:.{DIGITS}f}, {row.ci_high:.{DIGITS}f}]"


def amount(value: float | None, form: str) -> str:
    """Format a number with the format specification `form`; `-` for None."""
    return "-" if value is None else format(value, form)


def failures(cell: Cell) -> str:
    """Format the parse failure rate of a grounding cell; `-` if it has none."""
    rate = cell.row.parse_failure_rate if cell.row else None
    return "-" if rate is None else f"{rate:.{DIGITS}f}"


def header(grid: Headline) -> list[str]:
    """Return the column titles of text tables: per task its primary metric, worst client, local and parse failures."""
    titles = ["method", "seeds"]
    for task in grid.tasks:
        titles += [f"{task.name} {task.metric}", "worst", "local"]
        titles += ["parse failures"] if task.kind == "ground" else []
    return [*titles, "MB", "trainable parameters"]


def markdown(grid: Headline) -> str:
    """Format the grid as a GitHub Markdown table with footnotes; references are last."""
    lines = []
    for line in grid.lines:
        name = f"*{line.method}* (reference)" if line.reference else line.method
        lines.append([name, *_texts(grid, line, "**{}**".format, " {}".format)])
    notes = [f"- {note}" for note in footnotes(grid)]
    return "\n".join([f"## {grid.scenario}", "", *markdown_table(header(grid), lines), "", *notes]) + "\n"


def latex(grid: Headline) -> str:
    """Format the grid as a booktabs `table` environment: references below a rule, footnotes below the table."""
    lines = []
    previous = False
    for position, line in enumerate(grid.lines):
        if line.reference and not previous and position:
            lines.append(r"\midrule")
        previous = line.reference
        name = rf"\emph{{{escape(line.method)}}}" if line.reference else escape(line.method)
        texts = _texts(grid, line, r"\textbf{{{}}}".format, r" {{\scriptsize {}}}".format, clean=escape)
        lines.append(" & ".join([name, *texts]) + r" \\")
    caption = f"{escape(grid.scenario)}: primary metrics by method and task."
    columns = "l" + "r" * (len(header(grid)) - 1)
    return latex_table(caption, columns, _latex_header(grid), lines, footnotes(grid))


def records(grid: Headline) -> list[dict[str, Any]]:
    """Return the grid as flat records, one per method and task, with stable keys (JSON and CSV of `compare`)."""
    return [
        _record(grid, line, task.name, task.metric, cell)
        for line in grid.lines
        for task, cell in zip(grid.tasks, line.cells, strict=True)
    ]


def to_json(grids: Sequence[Headline], *, timing: bool = True) -> str:
    """Format all grids as one JSON object with sorted keys; floats are rounded to six decimals.

    Args:
        grids: one per scenario.
        timing: whether to include the wall time of each method, which differs between reruns.
    """
    value = {
        "scenarios": [
            {
                "scenario": grid.scenario,
                "tasks": [asdict(task) for task in grid.tasks],
                "baseline": grid.baseline,
                "allowed_differences": {
                    "allowed": grid.allowed.names,
                    "found": [asdict(difference) for difference in grid.allowed.found],
                },
                "rows": [
                    {key: value for key, value in record.items() if timing or key != "wall_seconds"}
                    for record in records(grid)
                ],
                "footnotes": footnotes(grid),
            }
            for grid in grids
        ]
    }
    return json.dumps(rounded(value), sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _latex_header(grid: Headline) -> list[str]:
    """Return the header lines: task names above their columns, rules below them, and column titles."""
    names, rules, titles, column = ["", ""], [], ["method", "seeds"], 3
    for task in grid.tasks:
        own = [escape(task.metric), "worst", "local", *(["failures"] if task.kind == "ground" else [])]
        names.append(rf"\multicolumn{{{len(own)}}}{{c}}{{{escape(task.name)}}}")
        rules.append(rf"\cmidrule(lr){{{column}-{column + len(own) - 1}}}")
        titles, column = titles + own, column + len(own)
    names, titles = [*names, "", ""], [*titles, "MB", "parameters"]
    return [" & ".join(names) + r" \\", " ".join(rules), " & ".join(titles) + r" \\"]


def _record(grid: Headline, line: Line, task: str, metric: str, cell: Cell) -> dict[str, Any]:
    row, worst, local, against = cell.row, cell.worst, cell.local, cell.against
    return {
        "scenario": grid.scenario,
        "method": line.method,
        "reference": line.reference,
        "imported": bool(line.imported),
        "task": task,
        "metric": row.metric if row else metric,
        "mean": row.mean if row else None,
        "std": row.std if row else None,
        "ci_low": row.ci_low if row else None,
        "ci_high": row.ci_high if row else None,
        "num_seeds": line.num_seeds,
        "worst_client": worst.mean if worst else None,
        "local_mean": local.mean if local else None,
        "local_std": local.std if local else None,
        "parse_failure_rate": row.parse_failure_rate if row else None,
        "status": row.status if row else "missing",
        "best": cell.best,
        "not_significantly_different_from_best": cell.close,
        "test": grid.test,
        "difference_to_baseline": against.difference if against else None,
        "p_value": against.p_value if against else None,
        "p_holm": against.p_holm if against else None,
        "megabytes": line.cost.megabytes,
        "trainable_parameters": line.cost.trainable_parameters,
        "wall_seconds": line.cost.wall_seconds,
    }


def _texts(
    grid: Headline,
    line: Line,
    bold: Callable[[str], str],
    small: Callable[[str], str],
    clean: Callable[[str], str] = str,
) -> list[str]:
    """Return the fields of a line after its name; `bold`, `small` and `clean` format and escape text."""
    texts = [str(line.num_seeds)]
    for task, cell in zip(grid.tasks, line.cells, strict=True):
        marks = (" †" if cell.close else "") + ARROWS[cell.arrow]
        value, ends = clean(number(cell.row)), interval(cell.row)
        texts.append((bold(value) if cell.best else value) + clean(marks) + (small(ends) if ends else ""))
        texts += [clean(number(row, spread=False)) for row in (cell.worst, cell.local)]
        texts += [failures(cell)] if task.kind == "ground" else []
    return [*texts, amount(line.cost.megabytes, ".2f"), amount(line.cost.trainable_parameters, ",.0f")]


def _field(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def rounded(value: Any) -> Any:
    """Round all floats in a JSON value to six decimals."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def markdown_table(titles: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Format a Markdown table whose first `left` columns are left-aligned, the others right-aligned."""
    rule = ["---"] * left + ["---:"] * (len(titles) - left)
    return [pipe(titles), pipe(rule), *(pipe(line) for line in lines)]


def pipe(cells: Iterable[str]) -> str:
    """Format a row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def latex_table(caption: str, columns: str, header: Iterable[str], lines: Iterable[str], notes: Sequence[str]) -> str:
    """Format a booktabs `table` environment, scaled to the line's width, with notes below it; escapes only the notes.

    Args:
        caption: LaTeX text.
        columns: column specification of the `tabular` environment.
        header: lines above the first rule.
        lines: lines below it.
        notes: plain text.
    """
    below = r" \\ ".join(map(escape, notes))
    text = [
        "% needs \\usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{caption}}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *header,
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\smallskip",
        rf"\begin{{minipage}}{{\linewidth}}\footnotesize {below}",
        r"\end{minipage}",
        r"\end{table}",
    ]
    return "\n".join(text) + "\n"


def escape(text: str) -> str:
    """Escape text for LaTeX, including the symbols of the tables."""
    pattern = "|".join(re.escape(key) for key in sorted(_LATEX, key=len, reverse=True))
    return re.sub(pattern, lambda match: _LATEX[match.group()], text)
