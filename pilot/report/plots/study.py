"""Figure of a study's part: bars, lines over the number that it sweeps, or differences of many methods."""

import math
from collections.abc import Sequence

from pilot.config.study import Setting
from pilot.config.variant import base_name
from pilot.matplotlib_import import Axes, Figure, Line2D, ScaledTranslation, Transform
from pilot.report.numbers.load import Task
from pilot.report.numbers.studies import PartTable, StudyRow
from pilot.report.plots import differences
from pilot.report.plots.bars import PAPER_ROW, bar, finish_panel
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import DARK, legend_below, legend_height, method_style, new_figure, title

_ASIDE = 2.5
"""Points (1/72 inch) between the lines at one number, so that their intervals do not hide each other."""
_LOGARITHMIC_FROM = 10.0
"""An axis is logarithmic if its largest number is at least this many times its smallest."""


def draw(table: PartTable, page: Page = SCREEN) -> Figure:
    """Draw one panel per task, each with its own scale."""
    if has_differences(table):
        return differences.draw(table, page)
    return _lines(table, page) if table.part.axis else _bars(table, page)


def has_differences(table: PartTable) -> bool:
    """Return whether a part is drawn as differences to its baseline: one setting and many methods."""
    return table.part.axis is None and len(table.grids) == 1 and len(table.part.methods) >= differences.MANY


def caption(table: PartTable) -> str:
    """Return the figure's caption."""
    if has_differences(table):
        return differences.caption(table)
    return f"{table.part.title}: primary metrics with 95 % bootstrap intervals (seed, client, image)."


def _bars(table: PartTable, page: Page) -> Figure:
    entries = [(setting, method) for setting in table.grids for method in table.part.methods]
    labels = [_label(table, setting, method) for setting, method in entries]
    screen = (3.1 * len(table.tasks) + 1.6, 0.33 * len(entries) + 1.25)
    figure = new_figure(*page.inches(screen, PAPER_ROW * len(entries) + 0.8))
    panels = figure.subplots(1, len(table.tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, table.tasks, strict=True):
        _bar_panel(axes, task, [table.row(setting, method, task) for setting, method in entries], page)
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylim(len(entries) - 0.4, -0.6)
    title(figure, caption(table), page)
    return figure


def _bar_panel(axes: Axes, task: Task, rows: Sequence[StudyRow], page: Page) -> None:
    top = max([value for row in rows for value in (row.mean, row.ci_high) if value is not None], default=1.0) or 1.0
    for place, row in enumerate(rows):
        if row.mean is None:
            axes.text(0.01 * top, place, row.status, va="center", fontsize=page.points(7), color=DARK)
            continue
        low, high = (math.nan if end is None else end for end in (row.ci_low, row.ci_high))
        end = bar(axes, place, method_style(row.method), row.mean, low, high, page)
        if not page.narrow:
            axes.text(end + 0.025 * top, place, f"{row.mean:.2f}", va="center", fontsize=page.points(7))
    finish_panel(axes, task, top, page)


def _lines(table: PartTable, page: Page) -> Figure:
    assert table.part.axis is not None, "drawn as bars without one"
    series: dict[str, list[tuple[Setting, str]]] = {}
    for setting in table.grids:
        for method in table.part.methods:
            series.setdefault(_series(table, setting, method), []).append((setting, method))
    handles = [_handle(label) for label in series]
    height = legend_height(handles, page) + (1.3 * len(table.tasks) + 0.3 if page.narrow else 2.1)
    figure = new_figure(*page.inches((2.9 * len(table.tasks) + 0.4, 3.1), height))
    shape = (len(table.tasks), 1) if page.narrow else (1, len(table.tasks))
    panels = figure.subplots(*shape, squeeze=False).flat
    for axes, task in zip(panels, table.tasks, strict=True):
        for number, (label, entries) in enumerate(series.items()):
            aside = ScaledTranslation(_ASIDE / 72 * (number - (len(series) - 1) / 2), 0, figure.dpi_scale_trans)
            _line(axes, label, [table.row(setting, method, task) for setting, method in entries], aside)
        last = not page.narrow or task is table.tasks[-1]
        numbers = sorted(set(table.part.axis.values.values()))
        _x_axis(axes, table.part.axis.label if last else "", numbers, len(series))
        axes.set_title(task.name)
        axes.set_ylabel(task.metric)
        axes.grid(axis="y", color="#E5E5E5", lw=0.6)
    if len(series) > 1:
        legend_below(figure, handles)
    title(figure, caption(table), page)
    return figure


def _line(axes: Axes, label: str, rows: Sequence[StudyRow], aside: Transform) -> None:
    """Draw points with intervals, joined in the order of the axis and shifted by `aside`."""
    known = [
        (row.axis, row.mean, row.ci_low, row.ci_high) for row in rows if row.axis is not None and row.mean is not None
    ]
    known.sort(key=lambda point: point[0])
    style = method_style(label)
    moved = axes.transData + aside
    places, means = [point[0] for point in known], [point[1] for point in known]
    axes.plot(places, means, color=style.colour, marker=style.marker, lw=1.3, ms=4.5, zorder=3, transform=moved)
    ends = [(place, low, high) for place, _, low, high in known if low is not None and high is not None]
    for place, low, high in ends:
        axes.plot([place, place], [low, high], color=style.colour, lw=1.0, alpha=0.6, transform=moved)
    # Shifted artists do not count towards the axes' limits.
    axes.update_datalim([*zip(places, means, strict=True), *((place, end) for place, *both in ends for end in both)])


def _handle(label: str) -> Line2D:
    style = method_style(label)
    return Line2D([], [], color=style.colour, marker=style.marker, lw=1.3, ms=4.5, label=label)


def _x_axis(axes: Axes, label: str, numbers: Sequence[float], num_series: int) -> None:
    if numbers[0] > 0 and numbers[-1] / numbers[0] >= _LOGARITHMIC_FROM:
        axes.set_xscale("log")
    axes.margins(x=0.04 + 0.012 * num_series)  # keeps shifted points inside
    axes.autoscale_view()
    axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axes.minorticks_off()
    axes.set_xlabel(label)


def _series(table: PartTable, setting: Setting, method: str) -> str:
    """Return the name of a line: method, scenario and profile, without what is swept or is the same everywhere."""
    names = {"methods": base_name(method) if table.part.varied_dimension == "methods" else method}
    names |= {"scenarios": setting.scenario, "profiles": setting.profile}
    several = {"methods": True, "scenarios": len(table.part.scenarios) > 1, "profiles": len(table.part.profiles) > 1}
    shown = [
        name
        for kind, name in names.items()
        if several[kind] and (kind == "methods" or kind != table.part.varied_dimension)
    ]
    return ", ".join(shown)


def _label(table: PartTable, setting: Setting, method: str) -> str:
    """Return the name of a bar: the method, and scenario and profile if there are several."""
    several = {"scenario": len(table.part.scenarios) > 1, "profile": len(table.part.profiles) > 1}
    return ", ".join([method, *(getattr(setting, name) for name, shown in several.items() if shown)])
