"""Figure `curves`: every task's headline metric over rounds and over bytes sent."""

from collections.abc import Sequence

import numpy as np
import pandas

from pilot.matplotlib_import import Axes, Figure, Line2D, MaxNLocator, ScaledTranslation
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import (
    SkipFigure,
    Source,
    legend_below,
    legend_height,
    method_style,
    new_figure,
    title,
)

_ASIDE = 1.8
"""Points (1/72 inch) between the lines of two methods at one round, so that their intervals do not hide each other."""
_MOST_INTERVALS = 8
_AXES = {"round": "rounds", "megabytes": "MB sent, all clients", "time": "virtual time (steps)"}


def draw(source: Source, page: Page = SCREEN) -> Figure:
    """Draw a column of panels per task: over rounds, over bytes (up and down), and over time if there is a clock.

    Points are means over clients and seeds of the personalised models; bars are 95 % intervals, left out if there are
    more than eight curves. Dashed lines are methods that train or send nothing: their value after the last round.
    Reads `tables/curves.csv`.
    """
    rows = source.curves
    rows = rows[(rows.protocol == "personalised") & rows["mean"].notna()].assign(megabytes=rows.bytes / 1e6)
    labels = [label for label in source.methods if (rows.method == label).any()]
    if not labels or rows["round"].max() == 0:
        raise SkipFigure("no run of the chosen methods was trained here")
    handles = [_handle(label, rows) for label in labels]
    trained = [label for label in labels if not _is_level(rows[rows.method == label], "round")]
    with_intervals = len(trained) <= _MOST_INTERVALS
    tasks, turned = source.tasks, page.narrow
    names = [name for name in _AXES if name != "time" or source.timed]
    height = legend_height(handles, page) + (1.35 * len(tasks) + 0.3 if turned else 1.7 * len(names))
    figure = new_figure(*page.inches((3.0 * len(tasks) + 0.4, 2.7 * len(names)), height))
    shape = (len(tasks), len(names)) if turned else (len(names), len(tasks))
    panels = figure.subplots(*shape, squeeze=False)
    for place, task in enumerate(tasks):
        own = rows[rows.task == task.name]
        for across, name in enumerate(names):
            axes = panels[place, across] if turned else panels[across, place]
            _panel(figure, axes, own, labels, name, with_intervals)
            last = place == len(tasks) - 1 if turned else True
            axes.set_xlabel(_AXES[name] if last else "")
            if across == 0 or not turned:
                axes.set_ylabel(task.metric)
            if across == 0:
                axes.set_title(task.name)
    legend_below(figure, handles)
    over = "rounds and over bytes sent up and down"
    over = "rounds, over bytes sent up and down and over virtual time" if source.timed else over
    drawn = " with 95 % intervals (seed, client, image)" if with_intervals else ""
    title(
        figure,
        f"{source.scenario}: personalised models over {over}; mean over clients and seeds{drawn}. Dashed: methods that "
        "send nothing, after the last round.",
        page,
    )
    return figure


def _panel(
    figure: Figure, axes: Axes, rows: pandas.DataFrame, labels: Sequence[str], name: str, with_intervals: bool
) -> None:
    for place, label in enumerate(labels):
        own, style = rows[rows.method == label].sort_values("round"), method_style(label)
        if not len(own):
            continue
        if _is_level(own, name):
            axes.axhline(own["mean"].iloc[-1], color=style.colour, lw=1.0, ls=(0, (4, 2)), zorder=1)
            continue
        aside = ScaledTranslation(_ASIDE / 72 * (place - (len(labels) - 1) / 2), 0, figure.dpi_scale_trans)
        moved = axes.transData + aside if name == "round" else axes.transData
        places, means = own[name].to_numpy(float), own["mean"].to_numpy(float)
        axes.plot(places, means, color=style.colour, marker=style.marker, lw=1.2, ms=3.5, zorder=3, transform=moved)
        axes.update_datalim(np.column_stack([places, means]))  # shifted artists do not count towards the limits
        known = own[own.ci_low.notna() & own.ci_high.notna()]
        ends = known[[name, "ci_low", "ci_high"]].to_numpy(float)
        for at, low, high in ends if with_intervals else ():
            axes.plot([at, at], [low, high], color=style.colour, lw=0.8, alpha=0.6, transform=moved)
            axes.update_datalim([(at, low), (at, high)])
    axes.grid(axis="y", color="#E5E5E5", lw=0.6)
    axes.margins(x=0.06)
    axes.autoscale_view()
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=name == "round"))


def _is_level(rows: pandas.DataFrame, name: str) -> bool:
    """Return whether a method has one value on an axis: it was not trained, or sends nothing."""
    return bool(rows["round"].max() == 0 or (name == "megabytes" and rows.megabytes.max() == 0))


def _handle(label: str, rows: pandas.DataFrame) -> Line2D:
    style, own = method_style(label), rows[rows.method == label]
    if own["round"].max() == 0:
        return Line2D([], [], color=style.colour, lw=1.0, ls=(0, (4, 2)), label=label)
    return Line2D([], [], color=style.colour, marker=style.marker, lw=1.2, ms=4.0, label=label)
