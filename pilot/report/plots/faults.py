"""Figure `faults`: share of quality lost, by task, method and fault."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pilot.report.faults import FaultRow, FaultTable
from pilot.report.load import Task
from pilot.report.order import PRIMARY_METRIC
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
        f"{table.scenario}: share of each primary metric lost with a fault, in percent, mean over the clients that "
        f"are not faulty themselves; seed{'s' if len(table.seeds) > 1 else ''} {seeds}.",
    )
    return figure


def _panel(axes: Axes, table: FaultTable, task: Task, rows: Sequence[FaultRow]) -> AxesImage:
    metric, faults = PRIMARY_METRIC[task.kind], list(table.settings)
    found = {(row.method, row.fault): row for row in rows if (row.task, row.metric) == (task.name, metric)}
    values = np.full((len(table.methods), len(faults)), np.nan)
    for line, method in enumerate(table.methods):
        for column, fault in enumerate(faults):
            row = found.get((method, fault))
            lost = row.lost_relative if row else None
            values[line, column] = np.nan if lost is None else lost
            text = (row.status if row and row.status != "ok" else "-") if lost is None else f"{100 * lost:.0f}"
            dark = lost is not None and abs(lost) > _DARK_BEYOND
            size = 7 if lost is not None else 5
            axes.text(
                column, line, text.replace("-0", "0") if text == "-0" else text, ha="center", va="center",
                fontsize=size, color="white" if dark else "black",
            )  # fmt: skip
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad=LIGHT)
    image = axes.imshow(values, cmap=colours, norm=Normalize(-1, 1, clip=True), aspect="auto")
    axes.set_yticks(range(len(table.methods)), table.methods)
    axes.set_title(f"{task.name}, {metric}", loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image
