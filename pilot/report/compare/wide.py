"""A table for readers in every format that `pilot-bench` prints; CSV and JSON hold the rows behind it."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pilot.report.compare.side_by_side import print_whole
from pilot.report.tables.render import escape, latex_table, markdown_table, rounded, to_csv

if TYPE_CHECKING:
    from rich.console import Console


class Wide(NamedTuple):
    """A table for readers: column titles, lines, how many columns are text, and notes."""

    titles: list[str]
    lines: list[list[str]]
    left: int
    notes: list[str]


def formatted(
    title: str, wide: Wide, columns: Sequence[str], rows: Sequence[Any], format: str, console: "Console | None" = None
) -> str | None:
    """Return a table in one of `FORMATS`; None for `table`, which is printed on the terminal or on `console`."""
    if format == "csv":
        return to_csv(rows, columns)
    if format == "json":
        records = [{column: getattr(row, column) for column in columns} for row in rows]
        return json.dumps(rounded(records), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if format == "markdown":
        notes = [f"- {note}" for note in wide.notes]
        return "\n".join([f"## {title}", "", *markdown_table(wide.titles, wide.lines, wide.left), "", *notes]) + "\n"
    if format == "latex":
        header, *lines = (" & ".join(map(escape, line)) + r" \\" for line in (wide.titles, *wide.lines))
        form = "l" * wide.left + "r" * (len(wide.titles) - wide.left)
        return latex_table(escape(title), form, [header], lines, wide.notes)
    _print(title, wide, console)
    return None


def _print(title: str, wide: Wide, console: "Console | None") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, header_style="bold")
    for place, column in enumerate(wide.titles):
        table.add_column(column.replace("[", r"\["), justify="left" if place < wide.left else "right", no_wrap=True)
    for line in wide.lines:
        table.add_row(*(text.replace("[", r"\[") for text in line))
    target = console or Console()
    print_whole(target, table)
    for note in wide.notes:
        target.print(f"  {note}", style="dim", markup=False, highlight=False)
