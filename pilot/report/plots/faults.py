"""Figure `faults`: share of quality lost, by task, method and fault."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pilot.matplotlib_import import Axes, AxesImage, Figure, Normalize, matplotlib
from pilot.report.numbers.faults import FaultRow, FaultTable
from pilot.report.numbers.load import Task
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import LIGHT, new_figure, title

_DARK_BEYOND = 0.6


def draw(table: FaultTable, rows: Sequence[FaultRow], page: Page = SCREEN) -> Figure:
    """Draw a heat map per task: methods by faults, coloured and labelled by the share of the value that is lost."""
    faults, num_methods = list(table.settings), len(table.methods)
    screen = (0.72 * len(faults) + 2.2, len(table.tasks) * (0.26 * num_methods + 0.35) + 1.5)
    figure = new_figure(
        *page.inches(screen, len(table.tasks) * (0.16 * num_methods + 0.25) + (1.5 if page.narrow else 1))
    )
    panels = figure.subplots(len(table.tasks), 1, sharex=True, squeeze=False)[:, 0]
    for axes, task in zip(panels, table.tasks, strict=True):
        image = _panel(axes, table, task, rows, page)
    panels[-1].set_xticks(range(len(faults)), faults, rotation=35, ha="right", rotation_mode="anchor")
    place = {"location": "bottom", "shrink": 0.9} if page.narrow else {"shrink": 0.7}
    bar = figure.colorbar(image, ax=list(panels), pad=0.02, aspect=30, format=_percent, **place)
    if page.narrow:
        bar.set_ticks([-1, -0.5, 0, 0.5, 1])
    bar.set_label("share lost (below 0: gained)")
    bar.outline.set_visible(False)
    seeds = ", ".join(map(str, table.seeds))
    title(
        figure,
        f"{table.scenario}, seed{'s' if len(table.seeds) > 1 else ''} {seeds}: percent of each primary metric that is "
        "lost with a fault, over the clients that are not faulty themselves.",
        page,
    )
    return figure


def _percent(value: float, _: int) -> str:
    return f"{100 * value:.0f} %"


def _label(row: FaultRow | None, page: Page) -> str:
    """Format the percentage lost; a dash if the value without the fault is 0; else the status (on paper `n/a`)."""
    if page.paper and (row is None or (row.lost_relative is None and row.status != "ok")):
        return "n/a"
    if row is None:
        return "unavailable"
    if row.lost_relative is None:
        return "-" if row.status == "ok" else row.status
    return f"{100 * row.lost_relative:z.0f}".replace("-", "\N{MINUS SIGN}")


def _panel(axes: Axes, table: FaultTable, task: Task, rows: Sequence[FaultRow], page: Page) -> AxesImage:
    metric, faults = task.metric, list(table.settings)
    found = {(row.method, row.fault): row for row in rows if (row.task, row.metric) == (task.name, metric)}
    values = np.full((len(table.methods), len(faults)), np.nan)
    for line, method in enumerate(table.methods):
        for column, fault in enumerate(faults):
            row = found.get((method, fault))
            lost = row.lost_relative if row else None
            values[line, column] = np.nan if lost is None else lost
            dark = lost is not None and abs(lost) > _DARK_BEYOND
            size = page.points(5 if lost is None else 7)
            style: dict[str, Any] = {"fontsize": size, "color": "white" if dark else "black"}
            axes.text(column, line, _label(row, page), ha="center", va="center", **style)
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad=LIGHT)
    image = axes.imshow(values, cmap=colours, norm=Normalize(-1, 1, clip=True), aspect="auto")
    axes.set_yticks(range(len(table.methods)), table.methods)
    axes.set_title(f"{task.name}, {metric}", loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image
