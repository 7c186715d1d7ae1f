"""Figure `cost`: quality against communicated bytes."""

import pandas

from pilot.matplotlib_import import Axes, Figure, Line2D, ScaledTranslation
from pilot.report.numbers.cost import summarise
from pilot.report.numbers.load import Task
from pilot.report.numbers.summary import group_runs
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import (
    MethodStyle,
    SkipFigure,
    Source,
    legend_below,
    legend_height,
    method_style,
    new_figure,
    title,
)

_WIDE_RANGE = 50.0
_MARKER, _STAR = 4.5, 7.0
"""Marker sizes on paper in points; a star is larger because it has less area at the same width."""


def draw(source: Source, page: Page = SCREEN) -> Figure:
    """Draw one panel per task: primary metric with 95 % interval over megabytes sent up and down in all rounds.

    References do not communicate as federated methods do and are drawn as dashed lines. Methods that send the same
    bytes are drawn side by side. Reads `tables/main.csv` and each run's `ledger.json`.
    """
    tasks = [task for task in source.tasks if len(source.primary(task))]
    megabytes = {group.label: summarise(group).megabytes for group in group_runs(source.runs)}
    known = {label: value for label, value in megabytes.items() if value is not None and not source.is_reference(label)}
    if not tasks or not known:
        raise SkipFigure("no method has both a primary metric and a ledger")
    legend = [_handle(label, source.is_reference(label), page) for label in source.methods]
    height = legend_height(legend, page) + (1.25 * len(tasks) + 0.3 if page.narrow else 2.2)
    figure = new_figure(*page.inches((3.0 * len(tasks) + 0.4, 3.6), height))
    shape = (len(tasks), 1) if page.narrow else (1, len(tasks))
    panels = figure.subplots(*shape, sharex=page.narrow, squeeze=False).flat
    for axes, task in zip(panels, tasks, strict=True):
        _panel(axes, source, task, known, page)
        if not page.narrow or task is tasks[-1]:
            axes.set_xlabel("sent up and down (MB)" if page.paper else "communicated, all clients and rounds (MB)")
    title(
        figure,
        f"{source.scenario}: mean and 95 % bootstrap interval against megabytes sent up and down. Methods "
        "that send the same are drawn side by side; dashed lines are references.",
        page,
    )
    legend_below(figure, legend)
    return figure


def _panel(axes: Axes, source: Source, task: Task, megabytes: dict[str, float], page: Page) -> None:
    rows = source.primary(task)
    for label, row in rows.iterrows():
        style = method_style(str(label))
        if source.is_reference(str(label)):
            axes.axhline(row["mean"], color=style.colour, ls="--", lw=1.2, zorder=1)
        elif label in megabytes:
            _point(axes, row, style, megabytes[str(label)], _dodge(str(label), megabytes, page), page)
    positive = [value for value in megabytes.values() if value > 0]
    if positive and max(positive) > _WIDE_RANGE * min(positive):
        axes.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
    largest = max(megabytes.values())
    axes.set_xlim(-0.04 * largest if largest else -1, 1.25 * largest if largest else 1)
    top = max(rows["mean"].max(), rows["ci_high"].fillna(0).max()) or 1.0
    axes.set_ylim(0, 1.06 * top)
    axes.set_title(task.name)
    axes.set_ylabel(task.metric)
    axes.grid(color="#E5E5E5", lw=0.6)


def _point(axes: Axes, row: pandas.Series, style: MethodStyle, x: float, points_aside: float, page: Page) -> None:
    aside = axes.transData + ScaledTranslation(points_aside / 72, 0, axes.figure.dpi_scale_trans)
    if row["ci_low"] == row["ci_low"]:
        width = 0.9 if page.paper else 1.4
        axes.plot([x, x], [row["ci_low"], row["ci_high"]], color=style.colour, lw=width, zorder=2, transform=aside)
    (marker,) = axes.plot([x], [row["mean"]], style.marker, color=style.colour, ms=6.5, transform=aside)
    marker.set(markeredgecolor="white", markeredgewidth=0.6, zorder=3)
    if page.paper:
        marker.set(markersize=_STAR if style.marker == "*" else _MARKER, markeredgewidth=0.3)


def _dodge(label: str, megabytes: dict[str, float], page: Page) -> float:
    """Return the horizontal offset in points that keeps methods with the same bytes from hiding each other.

    The total spread is limited, because a reader takes a marker's position for its value.
    """
    largest = max(megabytes.values()) or 1.0
    near = [other for other in megabytes if abs(megabytes[other] - megabytes[label]) < 0.02 * largest]
    most = (10.0 if page.paper else 22.0) / max(1, len(near) - 1)
    return min(8.0, most) * (near.index(label) - (len(near) - 1) / 2)


def _handle(label: str, reference: bool, page: Page) -> Line2D:
    style = method_style(label)
    if reference:
        return Line2D([], [], color=style.colour, ls="--", lw=1.2, label=label)
    size = _STAR + 1.5 if page.paper and style.marker == "*" else 7
    return Line2D([], [], color=style.colour, marker=style.marker, ls="", ms=size, mec="white", label=label)
