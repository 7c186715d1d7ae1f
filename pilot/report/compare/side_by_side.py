"""`pilot-bench compare`: quality, significance marks and cost of methods side by side, as a table or a data format."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.errors import UserError
from pilot.report.numbers.comparable import check_comparable
from pilot.report.numbers.headline import Cell, Headline, build_headlines, footnotes
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.significance import DEFAULT_TEST, Test
from pilot.report.numbers.summary import group_runs
from pilot.report.tables.render import (
    ARROWS,
    amount,
    failures,
    interval,
    latex,
    markdown,
    number,
    records,
    rows_to_csv,
    to_json,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FORMATS = ("table", "markdown", "latex", "csv", "json")
_WIDEST = 1_000


def check_format(format: str) -> None:
    """Check the name of a format.

    Raises:
        UserError: it is unknown.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: unknown. Expected one of: {', '.join(FORMATS)}.")


def compare(
    paths: Sequence[Path | str],
    baseline: str = "fedavg",
    format: str = "table",
    allow_different: Collection[str] = (),
    console: "Console | None" = None,
    test: Test = DEFAULT_TEST,
) -> str | None:
    """Compare the runs under `paths`.

    Args:
        paths: scenario, method or run folders.
        baseline: method to test the others against; if the default one is absent, a footnote says so.
        format: one of `FORMATS`; `table` prints.
        allow_different: names from `comparable.DIFFERENCES`, or "all": properties in which the runs may differ.
        console: where `table` prints; the terminal by default.
        test: the test that marks stand for.

    Returns:
        The text; None for `table`, which is printed.

    Raises:
        UserError: unknown format, nothing to load, an unfinished run, or runs that cannot be compared.
    """
    check_format(format)
    runs = load_runs(paths)
    allowed = check_comparable(runs, allow_different)
    grids = build_headlines(group_runs(runs), baseline, allowed, test)
    if format == "markdown":
        return "\n".join(markdown(grid) for grid in grids)
    if format == "latex":
        return "\n".join(latex(grid) for grid in grids)
    if format == "json":
        return to_json(grids)
    if format == "csv":
        found = dict.fromkeys(difference.what for difference in allowed.found)
        overlooked = {"allowed_differences": ";".join(allowed.names), "found_differences": ";".join(found)}
        rows = [record | overlooked for grid in grids for record in records(grid)]
        return rows_to_csv(list(rows[0]), rows)
    _print(grids, console)
    return None


def _print(grids: Sequence[Headline], console: "Console | None") -> None:
    from rich.console import Console

    target = console or Console()
    for grid in grids:
        print_whole(target, _table(grid))
        for note in footnotes(grid):
            target.print(f"  {note}", style="dim", markup=False, highlight=False)


def print_whole(console: "Console", table: "Table") -> None:
    """Print a table at its full width: lines may wrap in the terminal, but numbers are not cut off."""
    needed = table.__rich_measure__(console, console.options.update(max_width=_WIDEST)).maximum
    width = console.width
    console.width = max(width, needed)
    try:
        console.print(table, soft_wrap=True)
    finally:
        console.width = width


def _table(grid: Headline) -> "Table":
    from rich.table import Table

    table = Table(title=grid.scenario, header_style="bold")
    table.add_column("method", no_wrap=True)
    titles = ["seeds"]
    for task in grid.tasks:
        titles += [f"{task.name}\n{task.metric}".replace("[", r"\["), "worst\nclient", "local"]
        titles += ["parse\nfailures"] if task.kind == "ground" else []
    for title in (*titles, "MB\nup+down", "trainable\nparameters", "wall\nseconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for position, line in enumerate(grid.lines):
        if position and line.reference and not grid.lines[position - 1].reference:
            table.add_section()
        cells = [line.method.replace("[", r"\["), str(line.num_seeds)]
        for task, cell in zip(grid.tasks, line.cells, strict=True):
            cells += [_styled(cell), number(cell.worst, spread=False), number(cell.local, spread=False)]
            cells += [failures(cell)] if task.kind == "ground" else []
        cost = line.cost
        cells += [amount(cost.megabytes, ".2f"), amount(cost.trainable_parameters, ",.0f")]
        table.add_row(*cells, amount(cost.wall_seconds, ".1f"), style="italic" if line.reference else "")
    return table


def _styled(cell: Cell) -> str:
    """Format the value and its marks, with the interval on the next line."""
    text = number(cell.row) + (" †" if cell.close else "") + ARROWS[cell.arrow]
    text = f"[bold]{text} *[/bold]" if cell.best else text
    return text + f"\n{interval(cell.row)}".replace("[", r"\[")
