"""`pilot-bench compare`: quality, marks and cost of methods side by side, for people and machines."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.errors import UserError
from pilot.report.headline import Cell, Headline, build_headlines, footnotes
from pilot.report.load import check_comparable, load_runs
from pilot.report.order import PRIMARY_METRIC
from pilot.report.render import failures, latex, markdown, number, records, rows_to_csv, to_json
from pilot.report.summary import group_runs

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FORMATS = ("table", "markdown", "latex", "csv", "json")
_WIDEST = 1_000
_ARROWS = {"up": " ↑", "down": " ↓", "": ""}


def compare(
    paths: Sequence[Path | str],
    baseline: str = "fedavg",
    format: str = "table",
    allow_different: bool = False,
    console: "Console | None" = None,
) -> str | None:
    """Compare the runs under `paths`.

    Args:
        paths: scenario, method or run folders.
        baseline: method to test the others against; unless named, its absence is only noted.
        format: one of `FORMATS`; `table` prints.
        allow_different: compare runs that differ in data, budget or test set all the same.
        console: where `table` prints; the terminal by default.

    Returns:
        The text of the other formats; None for `table`.

    Raises:
        UserError: unknown format, nothing to load, an unfinished run, or runs that cannot be compared.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: unknown. Expected one of: {', '.join(FORMATS)}.")
    runs = load_runs(paths)
    check_comparable(runs, allow_different=allow_different)
    grids = build_headlines(group_runs(runs), baseline)
    if format == "markdown":
        return "\n".join(markdown(grid) for grid in grids)
    if format == "latex":
        return "\n".join(latex(grid) for grid in grids)
    if format == "json":
        return to_json(grids)
    if format == "csv":
        rows = [record for grid in grids for record in records(grid)]
        return rows_to_csv(list(rows[0]), rows)
    _print(grids, baseline, console)
    return None


def _print(grids: Sequence[Headline], baseline: str, console: "Console | None") -> None:
    from rich.console import Console

    target = console or Console()
    for grid in grids:
        table = _table(grid)
        needed = table.__rich_measure__(target, target.options.update(max_width=_WIDEST)).maximum
        _print_whole(target, table, needed)
        for note in footnotes(grid):
            target.print(f"  {note}", style="dim", markup=False, highlight=False)
        if grid.baseline:
            said = f"↑ ↓: significantly above or below {baseline} (paired permutation, Holm over the table)."
        else:
            said = f"No {baseline} among the runs: nothing is tested against it (choose with --baseline)."
        target.print(f"  {said}", style="dim", markup=False, highlight=False)


def _print_whole(console: "Console", table: "Table", needed: int) -> None:
    """Print a table at its own width: a cut number would be worse than a wrapped line."""
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
    for task in grid.tasks:
        table.add_column(f"{task.name}\n{PRIMARY_METRIC[task.kind]}".replace("[", r"\["), justify="right", no_wrap=True)
        table.add_column("worst\nclient", justify="right", no_wrap=True)
        if task.kind == "ground":
            table.add_column("parse\nfailures", justify="right", no_wrap=True)
    for title in ("MB\nup+down", "trainable\nparameters", "wall\nseconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for position, line in enumerate(grid.lines):
        if position and line.reference and not grid.lines[position - 1].reference:
            table.add_section()
        cells = [line.method.replace("[", r"\[")]
        for task, cell in zip(grid.tasks, line.cells, strict=True):
            cells += [_styled(cell), number(cell.worst, spread=False)]
            cells += [failures(cell)] if task.kind == "ground" else []
        cost = line.cost
        cells += [
            _plain(cost.megabytes, ".2f"),
            _plain(cost.trainable_parameters, ",.0f"),
            _plain(cost.wall_seconds, ".1f"),
        ]
        table.add_row(*cells, style="italic" if line.reference else "")
    return table


def _styled(cell: Cell) -> str:
    text = number(cell.row) + (" †" if cell.close else "") + _ARROWS[cell.arrow]
    return f"[bold]{text} *[/bold]" if cell.best else text


def _plain(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
