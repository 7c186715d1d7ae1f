"""Files of `results/<profile>/studies/<study>/`: tables and figures of every part. Equal results give equal bytes."""

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path

from pilot.config.study import Setting, Study
from pilot.io.atomic import write_text
from pilot.report.numbers.headline import TEST_NOTES
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.significance import DEFAULT_TEST
from pilot.report.numbers.statistics import LEVEL
from pilot.report.numbers.studies import PartTable, StudyRow, load_part
from pilot.report.plots import drift
from pilot.report.plots import study as plot
from pilot.report.plots.style import SkipFigure, Source, save_pages
from pilot.report.tables.render import (
    ARROWS,
    DIGITS,
    amount,
    column_names,
    escape,
    interval,
    latex_table,
    markdown_table,
    number,
    to_csv,
)

DRIFT = "-drift"


def write_study(study: Study, profile: str, results: Path, *, index: bool = True, paper: bool = False) -> list[Path]:
    """Write `<part>.csv`, `.md`, `.tex`, `.png`, `.pdf` and figure `<part>-drift` of every part, and `index.md`.

    Args:
        study: the study, with the parts and methods to write.
        profile: the profile that its runs were trained with.
        results: the folder of all results.
        index: whether to write `index.md`, which shows all parts.
        paper: whether to write `paper/<part>-column.pdf` and `-text.pdf` too, and those of `<part>-drift`.

    Returns:
        The files written.

    Raises:
        UserError: see `pilot.report.numbers.studies.load_part`; no file has been written then.
    """
    folder = results / profile / "studies" / study.name
    sheets = folder / "paper" if paper else None
    tables = [load_part(study.name, part, profile, results, study.seeds) for part in study.parts]
    written: list[Path] = []
    for table in tables:
        texts = {"csv": to_csv(table.rows, column_names(StudyRow)), "md": markdown(table), "tex": latex(table)}
        for ending, text in texts.items():
            written.append(folder / f"{table.part.name}.{ending}")
            write_text(written[-1], text)
        written += save_pages(partial(plot.draw, table), folder, table.part.name, sheets)
        written += _write_drift(table, results, folder, sheets)
    if index:
        drifts = {path.stem for path in written if path.stem.endswith(DRIFT)}
        pictures = [_pictures(table, drifts) for table in tables]
        pairs = zip(tables, pictures, strict=True)
        head = f"# {study.title}\n\nProfile `{profile}`, study `pipelines/studies/{study.name}.yaml`.\n"
        written.append(folder / "index.md")
        write_text(written[-1], "\n".join([head, *(f"{markdown(table)}\n{picture}" for table, picture in pairs)]))
    return written


def _write_drift(table: PartTable, results: Path, folder: Path, paper: Path | None) -> list[Path]:
    """Write the aggregation drift of a part's methods, if it has one setting and they sent LoRA pairs."""
    if len(table.grids) > 1:
        return []
    (setting,) = table.grids
    source = Source(setting.folder(results), tuple(load_runs(setting.runs(results, table.part.methods))))
    try:
        return save_pages(partial(drift.draw, source), folder, table.part.name + DRIFT, paper)
    except SkipFigure:
        return []


def _pictures(table: PartTable, drifts: Collection[str]) -> str:
    name, text = table.part.name, f"![{table.part.title}]({table.part.name}.png)\n\n*{plot.caption(table)}*\n"
    if name + DRIFT in drifts:
        text += f"\n![Aggregation drift]({name}{DRIFT}.png)\n\n*{drift.CAPTION}*\n"
    return text


def markdown(table: PartTable) -> str:
    """Format a part as a GitHub Markdown table with notes."""
    titles, left = header(table)
    out = [f"## {table.part.title}", "", *markdown_table(titles, lines(table, " {}".format), left)]
    return "\n".join([*out, "", *(f"- {note}" for note in notes(table))]) + "\n"


def latex(table: PartTable) -> str:
    """Format a part as a booktabs `table` environment with the notes below it."""
    titles, left = header(table)
    small = r" {{\scriptsize {}}}".format
    text = [" & ".join(line) + r" \\" for line in lines(table, small, escape)]
    columns = "l" * left + "r" * (len(titles) - left)
    return latex_table(
        f"{escape(table.part.title)}.", columns, [" & ".join(map(escape, titles)) + r" \\"], text, notes(table)
    )


def header(table: PartTable) -> tuple[list[str], int]:
    """Return the column titles, and how many of them are names (left-aligned)."""
    part = table.part
    names = [*_varied(table), "method"]
    names += [part.axis.label] if part.axis else []
    titles = [title for task in table.tasks for title in (f"{task.name} {task.metric}", f"Δ to {part.baseline}")]
    return [*names, *titles, "MB", "trainable parameters"], len(names)


def lines(table: PartTable, small: Callable[[str], str], clean: Callable[[str], str] = str) -> Iterable[list[str]]:
    """Yield the cells of each line; `small` formats the interval after a value, `clean` escapes text for the format."""
    for setting, grid in table.grids.items():
        for line in grid.lines:
            rows = [table.row(setting, line.method, task) for task in table.tasks]
            names = [getattr(setting, name) for name in _varied(table)]
            names += [line.method, *([f"{rows[0].axis:g}"] if rows[0].axis is not None else [])]
            cells = [clean(name) for name in names]
            for row, cell in zip(rows, line.cells, strict=True):
                ends = interval(cell.row)
                cells += [clean(number(cell.row)) + (small(ends) if ends else ""), clean(difference(row))]
            cost = amount(rows[0].megabytes, ".2f"), amount(rows[0].trainable_parameters, ",.0f")
            yield [*cells, *cost]


def difference(row: StudyRow) -> str:
    """Format a difference as `+0.031 ↑ (p 0.004)`, with an arrow if it is significant; `-` if nothing was tested."""
    if row.difference is None or row.p_holm is None:
        return "-"
    arrow = ARROWS["up" if row.difference > 0 else "down"] if row.p_holm < LEVEL else ""
    p = f"p < {10**-DIGITS}" if row.p_holm < 10**-DIGITS else f"p {row.p_holm:.{DIGITS}f}"
    return f"{row.difference:+.{DIGITS}f}{arrow} ({p})"


def notes(table: PartTable) -> list[str]:
    """Return the notes below a table: protocol, test, cost, incidents, quarantined rows, unavailable metrics."""
    tests = sum(row.p_holm is not None for row in table.rows)
    said = [note for grid in table.grids.values() for note in (*grid.incidents, *grid.quarantined)]
    shown = {row.metric for row in table.rows}
    reasons = dict.fromkeys(reason for grid in table.grids.values() for reason in grid.unavailable)
    unavailable = [reason for reason in reasons if reason.split(": ")[0] in shown]
    out = [
        "Each client's model on its task's test set (personalised), mean over the task's clients; mean ± standard "
        "deviation over seeds (ddof 1); in brackets a 95 % interval of the mean (hierarchical bootstrap over seeds, "
        "clients and images). CIDEr is on a scale of 0 to 10, the others 0 to 1.",
        f"Δ: difference to {table.part.baseline} in the same scenario and profile; p: {TEST_NOTES[DEFAULT_TEST]}, "
        f"Holm-corrected over the {tests} tests of this table; ↑ ↓: p < {LEVEL}. -: the baseline itself, or nothing to "
        "test.",
        "MB: 10^6 bytes sent up and down, all clients and rounds.",
        *dict.fromkeys(said),
    ]
    if len(table.grids) > 1:
        out.insert(2, "Lines of different scenarios or profiles differ in more than the method and are not tested.")
    return [*out, *(["Unavailable: " + "; ".join(unavailable) + "."] if unavailable else [])]


def _varied(table: PartTable) -> Sequence[str]:
    """Return those of `scenario` and `profile` that differ between settings."""
    settings: list[Setting] = list(table.grids)
    return [name for name in ("scenario", "profile") if len({getattr(setting, name) for setting in settings}) > 1]
