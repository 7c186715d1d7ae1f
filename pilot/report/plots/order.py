"""Figure `<part>-order`: the methods' ranks in every setting of a study's part, one panel per task."""

from collections.abc import Sequence

from pilot.config.study import Setting
from pilot.matplotlib_import import Axes, Figure
from pilot.report.numbers.agreement import AgreementRow
from pilot.report.numbers.load import Task
from pilot.report.numbers.studies import PartTable
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import DARK, method_style, new_figure, title

CAPTION = (
    "Ranks of the methods by their primary metric (1: best) in every setting; between settings Kendall's tau with its "
    "95 % interval."
)
_ROW, _EDGE, _NAME = 0.2, 0.95, 1.15
"""Inches: the height of a rank, what is above and below the ranks, the width of a method's name."""


def draw(table: PartTable, rows: Sequence[AgreementRow], names: Sequence[str], page: Page = SCREEN) -> Figure:
    """Draw a line per method over the settings, which have `names`; tau stands between neighbours."""
    num_tasks, num_methods = len(table.tasks), len(table.part.methods)
    across = 1 if page.narrow else num_tasks
    down = num_tasks if page.narrow else 1
    width = across * (0.9 * len(names) + 2 * _NAME)
    height = down * (num_methods * _ROW + _EDGE)
    figure = new_figure(*page.inches((width, height), height))
    panels = figure.subplots(down, across, squeeze=False).flat
    for axes, task in zip(panels, table.tasks, strict=True):
        _panel(axes, table, task, [row for row in rows if row.task == task.name], names, page)
    title(figure, f"{table.part.title}: {CAPTION}", page)
    return figure


def _panel(
    axes: Axes, table: PartTable, task: Task, rows: Sequence[AgreementRow], names: Sequence[str], page: Page
) -> None:
    settings = list(table.grids)
    ranks = [_ranks(table, setting, task) for setting in settings]
    for method in table.part.methods:
        style = method_style(method)
        points = [(place, found[method]) for place, found in enumerate(ranks) if method in found]
        if not points:
            continue
        axes.plot(
            *zip(*points, strict=True), color=style.colour, marker=style.marker, lw=1.3, ms=4.5, zorder=3, clip_on=False
        )
        for (place, rank), align, aside in zip((points[0], points[-1]), ("right", "left"), (-0.08, 0.08), strict=True):
            axes.text(place + aside, rank, method, ha=align, va="center", fontsize=page.points(7), color=DARK)
    last = len(settings) - 1
    for place in range(last):
        first, second = settings[place], settings[place + 1]
        row = next(row for row in rows if _is_of(row, first, second))
        axes.text(
            place + 0.5, len(table.part.methods) + 0.75, _tau(row), ha="center", va="center", fontsize=page.points(7)
        )
    axes.set_xlim(-1.1, last + 1.1)
    axes.set_ylim(len(table.part.methods) + 1.1, 0.4)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.set_title(f"{task.name} {task.metric}")


def _is_of(row: AgreementRow, first: Setting, second: Setting) -> bool:
    return (row.scenario, row.profile, row.other_scenario, row.other_profile) == (
        first.scenario, first.profile, second.scenario, second.profile
    )  # fmt: skip


def _ranks(table: PartTable, setting: Setting, task: Task) -> dict[str, int]:
    """Return each method's rank in a setting; equal values are ranked in the study's order."""
    means = {method: table.row(setting, method, task).mean for method in table.part.methods}
    known = [method for method, mean in means.items() if mean is not None]
    return {method: rank for rank, method in enumerate(sorted(known, key=lambda each: -(means[each] or 0.0)), start=1)}


def _tau(row: AgreementRow) -> str:
    if row.tau is None:
        return "τ -"
    ends = "" if row.ci_low is None else f"\n[{row.ci_low:.2f}, {row.ci_high:.2f}]"
    return f"τ {row.tau:.2f}{ends}"
