"""LaTeX tables for a paper: quality, tests and cost in separate tables that need no scaling (only booktabs).

With three tasks each table fits a column of 3.33 inches; long method names reduce the font size. For a table across
two columns, replace `table` by `table*`.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pilot.report.numbers.cost import cost_rows
from pilot.report.numbers.headline import Cell, Headline, Line
from pilot.report.numbers.load import Task
from pilot.report.numbers.statistics import LEVEL
from pilot.report.numbers.summary import Group
from pilot.report.tables.render import ARROWS, DIGITS, escape

_COST = (
    ("bytes up", "MB up", 1e6, 2),
    ("bytes down", "MB down", 1e6, 2),
    ("trainable_parameters", "params (k)", 1e3, 1),
    ("training_flops", "TFLOP", 1e12, 2),
)
"""Quantity, title, unit, decimals."""
_LONG_NAME = 13


def paper_tables(grids: Sequence[Headline], groups: Sequence[Group]) -> dict[str, str]:
    """Return the text of each file by name; the tables of several scenarios follow each other."""
    return {
        "grid.tex": "\n".join(_grid(grid) for grid in grids),
        "significance.tex": "\n".join(_significance(grid) for grid in grids),
        "cost.tex": "\n".join(_cost(grid, groups) for grid in grids),
    }


def _grid(grid: Headline) -> str:
    rows = [(line.reference, [_name(line), *(_value(cell) for cell in line.cells)]) for line in grid.lines]
    base = escape(grid.baseline or "")
    above = f"$\\uparrow\\downarrow$: above or below {base} ($p<{LEVEL}$, Holm-corrected). " if base else ""
    caption = (
        f"{escape(grid.scenario)}: mean $\\pm$ standard deviation over seeds; personalised models on their "
        "task's test set. Bold: best federated method; $\\dagger$: not significantly different from it. "
        f"{above}Below the rule: references."
    )
    titles = [rf"\multicolumn{{2}}{{c}}{{{_task(task)}}}" for task in grid.tasks]
    return _table(f"{grid.scenario}-quality", caption, ["", *titles], rows, "r@{\\,}l")


def _significance(grid: Headline) -> str:
    rows = [
        (line.reference, [_name(line), *(_test(cell) for cell in line.cells)])
        for line in grid.lines
        if line.method != grid.baseline
    ]
    caption = (
        f"{escape(grid.scenario)}: difference to {escape(grid.baseline or 'no baseline')} with $p$ that it would be "
        "found between equal methods, trained again (paired over seeds and images), Holm-corrected over the table."
    )
    return _table(f"{grid.scenario}-significance", caption, ["", *map(_task, grid.tasks)], rows)


def _cost(grid: Headline, groups: Sequence[Group]) -> str:
    totals: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in cost_rows([group for group in groups if group.scenario == grid.scenario]):
        if row.round is None and row.component is None:
            totals[row.method, " ".join(filter(None, (row.quantity, row.direction)))].append(row.value)
    rows = [(line.reference, [_name(line), *_amounts(totals, line.method)]) for line in grid.lines]
    caption = f"{escape(grid.scenario)}: cost of a run, all clients and rounds, mean over seeds."
    return _table(f"{grid.scenario}-cost", caption, ["", *(title for _, title, *_ in _COST)], rows)


def _table(
    label: str, caption: str, titles: Sequence[str], rows: Sequence[tuple[bool, Sequence[str]]], column: str = "r"
) -> str:
    size = "scriptsize" if max((len(cells[0]) for _, cells in rows), default=0) > _LONG_NAME else "footnotesize"
    out = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        rf"\centering\{size}\setlength{{\tabcolsep}}{{2.5pt}}",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
        r"\begin{tabular}{@{}l" + column * (len(titles) - 1) + "@{}}",
        r"\toprule",
        " & ".join(titles) + r" \\",
        r"\midrule",
    ]
    before = None
    for reference, cells in rows:
        out += [r"\midrule"] if before is False and reference else []
        out.append(" & ".join(cells) + r" \\")
        before = reference
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _name(line: Line) -> str:
    return rf"\emph{{{escape(line.method)}}}" if line.reference else escape(line.method)


def _task(task: Task) -> str:
    """Format the task's name above its metric."""
    return rf"\shortstack{{{escape(task.name)}\\{escape(task.metric)}}}"


def _value(cell: Cell) -> str:
    """Format a cell as two columns: the mean, bold for the best; the standard deviation in a small font, with marks."""
    row = cell.row
    if row is None or row.mean is None:
        return ("--" if row is None else row.status) + " &"
    text = f"{row.mean:.{DIGITS}f}"
    text = rf"\textbf{{{text}}}" if cell.best else text
    marks = (r"$^\dagger$" if cell.close else "") + escape(ARROWS[cell.arrow].strip())
    spread = rf"{{\tiny$\pm${row.std:.{DIGITS}f}}}" if row.std is not None else ""
    return f"{text} & {spread}{marks}"


def _test(cell: Cell) -> str:
    """Format the difference to the baseline and its p-value: `+0.045 (0.003)`."""
    if cell.against is None:
        return "--"
    p = cell.against.p_holm
    small = f"$<${10**-DIGITS}" if p < 10**-DIGITS else f"{p:.{DIGITS}f}"
    return f"${cell.against.difference:+.{DIGITS}f}$ ({small})"


def _amounts(totals: dict[tuple[str, str], list[int]], method: str) -> Iterable[str]:
    for quantity, _, unit, digits in _COST:
        values = totals.get((method, quantity))
        yield f"{sum(values) / len(values) / unit:.{digits}f}" if values else "--"
