"""Files of `results/<profile>/studies/<study>/`: tables and figures of every part. Equal results give equal bytes."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from pilot.config.study import Setting, Study
from pilot.io.atomic import write_text
from pilot.report.numbers.agreement import (
    DOWN,
    NONE,
    UP,
    AgreementRow,
    agreement_rows,
    compares_orders,
    conclusions,
)
from pilot.report.numbers.headline import TEST_NOTES
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.significance import DEFAULT_TEST
from pilot.report.numbers.statistics import LEVEL
from pilot.report.numbers.studies import PartTable, StudyRow, load_part
from pilot.report.plots import drift, order
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

DRIFT, ORDER = "-drift", "-order"
_MARKS = {UP: "↑", DOWN: "↓", NONE: "="}


def write_study(study: Study, profile: str, results: Path, *, index: bool = True, paper: bool = False) -> list[Path]:
    """Write `<part>.csv`, `.md`, `.tex`, `.png`, `.pdf` and figure `<part>-drift` of every part, and `index.md`.

    A part with several settings also gets `<part>-order.csv` and the figure `<part>-order`: whether its settings order
    the methods alike.

    Args:
        study: the study, with the parts and methods to write.
        profile: the profile that its runs were trained with.
        results: the folder of all results.
        index: whether to write `index.md`, which shows all parts.
        paper: whether to write `paper/<part>-column.pdf` and `-text.pdf` too, and those of the other figures.

    Returns:
        The files written.

    Raises:
        UserError: see `pilot.report.numbers.studies.load_part`; no file has been written then.
    """
    folder = results / profile / "studies" / study.name
    sheets = folder / "paper" if paper else None
    tables = [load_part(study.name, part, profile, results, study.seeds) for part in study.parts]
    written: list[Path] = []
    orders = {table.part.name: agreement_rows(table) for table in tables if compares_orders(table)}
    texts_of = {table.part.name: markdown(table) + order_markdown(table, orders) for table in tables}
    for table in tables:
        texts = {
            "csv": to_csv(table.rows, column_names(StudyRow)), "md": texts_of[table.part.name], "tex": latex(table)
        }  # fmt: skip
        for ending, text in texts.items():
            written.append(folder / f"{table.part.name}.{ending}")
            write_text(written[-1], text)
        written += save_pages(partial(plot.draw, table), folder, table.part.name, sheets)
        written += _write_drift(table, results, folder, sheets)
        if (rows := orders.get(table.part.name)) is not None:
            written.append(folder / f"{table.part.name}{ORDER}.csv")
            write_text(written[-1], to_csv(rows, column_names(AgreementRow)))
            drawn = partial(order.draw, table, rows, _setting_names(table))
            written += save_pages(drawn, folder, table.part.name + ORDER, sheets)
    if index:
        drawn_beside = {path.stem for path in written if path.stem.endswith((DRIFT, ORDER))}
        pictures = [_pictures(table, drawn_beside) for table in tables]
        pairs = zip(tables, pictures, strict=True)
        head = f"# {study.title}\n\nProfile `{profile}`, study `pipelines/studies/{study.name}.yaml`.\n"
        written.append(folder / "index.md")
        write_text(
            written[-1], "\n".join([head, *(f"{texts_of[table.part.name]}\n{picture}" for table, picture in pairs)])
        )
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


def _pictures(table: PartTable, beside: Collection[str]) -> str:
    name, text = table.part.name, f"![{table.part.title}]({table.part.name}.png)\n\n*{plot.caption(table)}*\n"
    if name + ORDER in beside:
        text += f"\n![Order of the methods]({name}{ORDER}.png)\n\n*{order.CAPTION}*\n"
    if name + DRIFT in beside:
        text += f"\n![Aggregation drift]({name}{DRIFT}.png)\n\n*{drift.CAPTION}*\n"
    return text


def markdown(table: PartTable) -> str:
    """Format a part as a GitHub Markdown table with notes."""
    titles, left = header(table)
    out = [f"## {table.part.title}", "", *markdown_table(titles, lines(table, " {}".format), left)]
    return "\n".join([*out, "", *(f"- {note}" for note in notes(table))]) + "\n"


def order_markdown(table: PartTable, orders: Mapping[str, Sequence[AgreementRow]]) -> str:
    """Format tau of every pair of settings, and what becomes of every mark, as Markdown; empty for one setting."""
    rows = orders.get(table.part.name)
    if rows is None:
        return ""
    names = dict(zip(table.grids, _setting_names(table), strict=True))
    shown = {(setting.scenario, setting.profile): name for setting, name in names.items()}
    taus = [
        [
            row.task,
            f"{shown[row.scenario, row.profile]}, {shown[row.other_scenario, row.other_profile]}",
            amount(row.tau, ".2f") + ("" if row.ci_low is None else f" [{row.ci_low:.2f}, {row.ci_high:.2f}]"),
        ]
        for row in rows
    ]
    found = [
        [each.task, each.method, *(_MARKS[mark] for mark in each.marks), each.verdict] for each in conclusions(table)
    ]
    return "\n".join(
        [
            "",
            f"### {table.part.title}: order of the methods",
            "",
            *markdown_table(["task", "settings", "Kendall's τ"], taus, 2),
            "",
            "- τ of the methods' means: 1 for the same order, -1 for the reverse; in brackets a 95 % interval "
            "(bootstrap over seeds and images; it contains τ, and is nearer to 0 where methods are close).",
            "",
            f"### {table.part.title}: marks against {table.part.baseline}",
            "",
            *markdown_table(["task", "method", *names.values(), "holds"], found, 2),
            "",
            f"- ↑ ↓: above or below {table.part.baseline} after training again (p < {LEVEL}, Holm-corrected over the "
            "part); =: not told apart. holds: everywhere, somewhere, nowhere, or reversed.",
            "",
        ]
    )


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
    names = [*_varied(table), *(["family"] if plot.has_differences(table) else []), "method"]
    names += [part.axis.label] if part.axis else []
    titles = [title for task in table.tasks for title in (f"{task.name} {task.metric}", f"Δ to {part.baseline}")]
    return [*names, *titles, "MB", "TFLOPs", "trainable parameters"], len(names)


def lines(table: PartTable, small: Callable[[str], str], clean: Callable[[str], str] = str) -> Iterable[list[str]]:
    """Yield the cells of each line; `small` formats the interval after a value, `clean` escapes text for the format."""
    for setting, grid in table.grids.items():
        before = ""
        for line in grid.lines:
            rows = [table.row(setting, line.method, task) for task in table.tasks]
            names = [getattr(setting, name) for name in _varied(table)]
            if plot.has_differences(table):
                names.append("" if rows[0].family == before else rows[0].family)
                before = rows[0].family
            names += [line.method, *([f"{rows[0].axis:g}"] if rows[0].axis is not None else [])]
            cells = [clean(name) for name in names]
            for row, cell in zip(rows, line.cells, strict=True):
                ends = interval(cell.row)
                cells += [clean(number(cell.row)) + (small(ends) if ends else ""), clean(difference(row))]
            cost = amount(rows[0].megabytes, ".2f"), amount(rows[0].teraflops, ".2f")
            yield [*cells, *cost, amount(rows[0].trainable_parameters, ",.0f")]


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
        "MB: 10^6 bytes sent up and down; TFLOPs: 10^12 floating-point operations of training; all clients and rounds.",
        *dict.fromkeys(said),
    ]
    if len(table.grids) > 1:
        out.insert(2, "Lines of different scenarios or profiles differ in more than the method and are not tested.")
    return [*out, *(["Unavailable: " + "; ".join(unavailable) + "."] if unavailable else [])]


def _setting_names(table: PartTable) -> list[str]:
    """Return what tells each setting from the others."""
    return [", ".join(getattr(setting, name) for name in _varied(table)) for setting in table.grids]


def _varied(table: PartTable) -> Sequence[str]:
    """Return those of `scenario` and `profile` that differ between settings."""
    settings: list[Setting] = list(table.grids)
    return [name for name in ("scenario", "profile") if len({getattr(setting, name) for setting in settings}) > 1]
