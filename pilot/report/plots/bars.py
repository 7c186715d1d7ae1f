"""Figure `bars`: quality by task and method, with intervals and individual seeds."""

import math

import numpy as np

from pilot.matplotlib_import import Axes, Figure, MaxNLocator
from pilot.report.numbers.load import Task
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import DARK, MethodStyle, SkipFigure, Source, method_style, new_figure, title

PAPER_ROW = 0.155
"""Inches per method on paper."""


def draw(source: Source, page: Page = SCREEN) -> Figure:
    """Draw one panel per task (each metric has its own axis), one bar per method, 95 % bootstrap intervals.

    Reads `tables/main.csv` and `tables/per_client.csv`.
    """
    tasks = [task for task in source.tasks if len(source.primary(task))]
    if not tasks:
        raise SkipFigure("no primary metric has a value")
    methods = source.methods
    gap = {label: 0.6 * source.is_reference(label) for label in methods}
    places = {label: index + gap[label] for index, label in enumerate(methods)}
    size = page.inches((3.1 * len(tasks) + 0.9, 0.33 * len(methods) + 1.25), PAPER_ROW * len(methods) + 0.8)
    figure = new_figure(*size)
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        _panel(axes, source, task, places, page)
    panels[0].set_yticks(list(places.values()), methods)
    panels[0].invert_yaxis()
    if page.paper:
        panels[0].set_ylim(max(places.values()) + 0.6, -0.6)
    title(
        figure,
        f"{source.scenario}: means over clients and seeds, 95 % bootstrap intervals (seed, client, image), "
        "dots: single seeds. Rows below the gap are references.",
        page,
    )
    return figure


def bar(axes: Axes, place: float, style: MethodStyle, mean: float, low: float, high: float, page: Page) -> float:
    """Draw a horizontal bar with its interval (none if its ends are NaN); return the largest x that it reaches."""
    thick, thin = (1.6, 0.7) if page.paper else (2.6, 1.1)
    axes.barh(place, mean, height=0.72, color=style.colour, hatch=style.hatch, edgecolor="white", lw=0)
    if math.isnan(low):
        return mean
    axes.plot([low, high], [place, place], color="white", lw=thick, solid_capstyle="butt")
    axes.plot([low, high], [place, place], color="black", lw=thin, solid_capstyle="butt")
    return max(mean, high)


def finish_panel(axes: Axes, task: Task, top: float, page: Page) -> None:
    """Set title, grid and x axis, from 0 to slightly above `top`; a metric that is a share gets no tick above 1."""
    if page.narrow:
        axes.xaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
    axes.set_xlim(0, top * (1.05 if page.narrow else 1.2))
    if task.kind != "caption":
        axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= min(1.0, top * 1.2) + 1e-9])
    axes.set_title(task.name)
    axes.set_xlabel(task.metric.replace("[", "\n[") if page.narrow else task.metric)
    axes.grid(axis="x", color="#E5E5E5", lw=0.6)
    axes.tick_params(axis="y", length=0)


def _panel(axes: Axes, source: Source, task: Task, places: dict[str, float], page: Page) -> None:
    rows = source.primary(task)
    clients = source.per_client
    chosen = (clients.task == task.name) & (clients.metric == task.metric)
    seeds = clients[chosen & (clients.protocol == "personalised")].groupby(["method", "seed"])["value"].mean()
    top = max(rows["mean"].max(), rows["ci_high"].fillna(0).max()) or 1.0
    for label, place in places.items():
        if label not in rows.index:
            axes.text(0.01 * top, place, source.status(task, label), va="center", fontsize=page.points(7), color=DARK)
            continue
        row, style = rows.loc[label], method_style(label)
        mean, low, high = np.asarray(rows.loc[label, ["mean", "ci_low", "ci_high"]], dtype=float).tolist()
        end = bar(axes, place, style, mean, low, high, page)
        points = seeds.loc[label].to_numpy()
        if len(points) > 1:
            size, line = (4, 0.4) if page.paper else (9, 0.6)
            axes.scatter(
                points, [place] * len(points), s=size, color="white", edgecolor="black", linewidth=line, zorder=3
            )
            end = max(end, points.max())
        if not page.narrow:
            axes.text(end + 0.025 * top, place, f"{row['mean']:.2f}", va="center", fontsize=page.points(7))
    finish_panel(axes, task, top, page)
