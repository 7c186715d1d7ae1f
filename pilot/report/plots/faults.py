"""Figure `faults`: share of quality lost, by task, method and fault."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pilot.report.faults import FaultRow, FaultTable
from pilot.report.load import Task
from pilot.report.plots.style import LIGHT, new_figure, title

_DARK_BEYOND = 0.6


def draw(table: FaultTable, rows: Sequence[FaultRow]) -> Figure:
    """A heat map per task: methods by faults, coloured and labelled by the share of the value without the fault."""
    faults, num_methods = list(table.settings), len(table.methods)
    figure = new_figure(0.72 * len(faults) + 2.2, len(table.tasks) * (0.26 * num_methods + 0.35) + 1.5)
    panels = figure.subplots(len(table.tasks), 1, sharex=True, squeeze=False)[:, 0]
    for axes, task in zip(panels, table.tasks, strict=True):
        image = _panel(axes, table, task, rows)
    panels[-1].set_xticks(range(len(faults)), faults, rotation=35, ha="right", rotation_mode="anchor")
    bar = figure.colorbar(image, ax=list(panels), shrink=0.7, pad=0.02, aspect=30)
    bar.set_label("share lost (below 0: gained)")
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    bar.outline.set_visible(False)
    seeds = ", ".join(map(str, table.seeds))
    title(
        figure,
        f"{table.scenario}, seed{'s' if len(table.seeds) > 1 else ''} {seeds}: percent of each primary metric that is "
        "lost with a fault, over the clients that are not faulty themselves.",
    )
    return figure


def _label(row: FaultRow | None) -> str:
    """Percent lost; why there is no such number; or a dash, where the share of 0 is meant."""
    if row is None:
        return "unavailable"
    if row.lost_relative is None:
        return "-" if row.status == "ok" else row.status
    return f"{100 * row.lost_relative:z.0f}".replace("-", "\N{MINUS SIGN}")


def _panel(axes: Axes, table: FaultTable, task: Task, rows: Sequence[FaultRow]) -> AxesImage:
    metric, faults = task.metric, list(table.settings)
    found = {(row.method, row.fault): row for row in rows if (row.task, row.metric) == (task.name, metric)}
    values = np.full((len(table.methods), len(faults)), np.nan)
    for line, method in enumerate(table.methods):
        for column, fault in enumerate(faults):
            row = found.get((method, fault))
            lost = row.lost_relative if row else None
            values[line, column] = np.nan if lost is None else lost
            dark = lost is not None and abs(lost) > _DARK_BEYOND
            style: dict[str, Any] = {"fontsize": 5 if lost is None else 7, "color": "white" if dark else "black"}
            axes.text(column, line, _label(row), ha="center", va="center", **style)
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad=LIGHT)
    image = axes.imshow(values, cmap=colours, norm=Normalize(-1, 1, clip=True), aspect="auto")
    axes.set_yticks(range(len(table.methods)), table.methods)
    axes.set_title(f"{task.name}, {metric}", loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image
