"""Figure `matrix`: models of each task's clients on every task's test set, by method."""

import math
import textwrap

import numpy as np
import pandas

from pilot.matplotlib_import import Axes, Figure, Rectangle
from pilot.report.numbers.cross_task import EVERYONE
from pilot.report.numbers.load import Task
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import DARK, OKABE_ITO, SkipFigure, Source, new_figure, title

_BESIDE, _NUMBER, _NAME = 1.2, 0.26, 12
"""On paper: inches of the methods' names, smallest width of a cell with a number; characters of a name per line."""


def draw(source: Source, page: Page = SCREEN) -> Figure:
    """Draw a row per method; a block of columns per task whose clients' models answer, a column per task asked.

    A cell is the mean over the task's clients and over seeds; its colour runs from the lowest to the highest value of
    the task that is asked. Frames mark clients on their own task. Reads `tables/matrix.csv`.
    """
    rows, tasks = source.matrix, source.tasks
    methods = [label for label in source.methods if (rows.method == label).any()]
    if not methods:
        raise SkipFigure("no run of the chosen methods was trained here")
    values_MTT = np.array([cross_task_means(source, label) for label in methods])
    if np.isnan(values_MTT).all():
        raise SkipFigure("tables/matrix.csv has no values")
    low_T, high_T = np.nanmin(values_MTT, axis=(0, 1)), np.nanmax(values_MTT, axis=(0, 1))
    shade_MTT = (values_MTT - low_T) / np.where(high_T > low_T, high_T - low_T, 1.0)
    num = len(tasks) ** 2
    width, height = page.inches((0.5 * num + 2.2, 0.27 * len(methods) + 2.1), 0.17 * len(methods) + 1.5)
    numbers = not page.paper or (width - _BESIDE) / num > _NUMBER
    figure = new_figure(width, height)
    axes = figure.subplots()
    shown = np.ma.masked_invalid(shade_MTT.reshape(len(methods), num))
    axes.imshow(shown, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    axes.set_facecolor("#EEEEEE")
    for (row, column), value in np.ndenumerate(values_MTT.reshape(len(methods), num)):
        ink = DARK if not np.isfinite(value) else "black" if shown[row, column] > 0.55 else "white"
        text = f"{value:.2f}" if np.isfinite(value) else "-"
        if numbers:
            axes.text(column, row, text, ha="center", va="center", fontsize=page.points(7), color=ink)
    _name_columns(axes, tasks, len(methods), page)
    axes.set_yticks(range(len(methods)), methods)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    title(
        figure,
        f"{source.scenario}: models of each task's clients (blocks) asked about every task (columns), mean over "
        "clients and seeds. Colours: from the lowest to the highest value of the task that is asked, yellow is best. "
        "Framed: a client's own task. Methods with one model for all clients have equal blocks.",
        page,
    )
    return figure


def _name_columns(axes: Axes, tasks: tuple[Task, ...], num_rows: int, page: Page) -> None:
    """Name the columns below, the blocks above; frame the diagonal of the blocks."""
    num = len(tasks)
    names = [f"{task.name}\n{task.metric.split('[')[0]}" for task in tasks]
    axes.set_xticks(range(num * num), names * num, rotation=90, fontsize=page.points(7), linespacing=0.95)
    axes.set_xlabel("asked about the test set of", fontsize=page.points(8))
    for place, task in enumerate(tasks):
        centre = place * num + (num - 1) / 2
        name = textwrap.fill(task.name, _NAME) if page.narrow else task.name
        text = f"{name}\nmodels" if page.narrow else f"models of {name} clients"
        axes.annotate(
            text, (centre, -0.5), xytext=(0, 3), textcoords="offset points", ha="center", va="bottom",
            fontsize=page.points(8), annotation_clip=False,
        )  # fmt: skip
        frame = Rectangle(
            (place * num + place - 0.48, -0.48), 0.96, num_rows - 0.04, fill=False, ec=OKABE_ITO[1], lw=1.5
        )
        axes.add_patch(frame)
        if place:
            axes.axvline(place * num - 0.5, color="white", lw=3)


def cross_task_means(source: Source, label: str) -> list[list[float]]:
    """Return a method's means by the clients' task and the task asked, shape (T, T); NaN if not evaluated."""
    rows = source.matrix[source.matrix.method == label]
    table = []
    for own in source.tasks:
        mine = rows[(rows.client_task == own.name) | (rows.client == EVERYONE)]
        table.append([_mean(mine[mine.task == task.name]["mean"]) for task in source.tasks])
    return table


def _mean(values: pandas.Series) -> float:
    return float(values.mean()) if len(values) else math.nan
