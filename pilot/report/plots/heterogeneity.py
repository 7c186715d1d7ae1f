"""Figure `heterogeneity`: label distributions of the clients and distances between them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pilot.io.sealed import read_sealed
from pilot.matplotlib_import import Axes, Figure, ScaledTranslation
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import DARK, GREY, OKABE_ITO, SkipFigure, Source, new_figure, separate_tasks

_MAX_LABELS = 7
_MATRIX, _NARROW_PANEL, _TICK, _LEGEND_BELOW = 2.2, 0.7, 0.17, 0.34
"""Inches on paper: the matrix, a panel of bars, a tick label, the gap from the axis to the legend below it."""
_MOST_NUMBERED = 10
"""Largest number of clients for which the matrix on paper has room for numbers."""


def draw(source: Source, page: Page = SCREEN) -> Figure:
    """Draw stacked label counts per client for each task, and the Jensen-Shannon distances between all clients.

    Labels beyond the seven most frequent (see `label_order`) are drawn together as `other`. Reads
    `partition/heterogeneity.json`.
    """
    path = source.scenario_dir / "partition" / "heterogeneity.json"
    if not path.exists():
        raise SkipFigure(f"{path} is missing (partition the scenario first)")
    report = read_sealed(path)
    tasks = [
        name
        for name in dict.fromkeys(client["task"] for client in report["clients"])
        if name in report["label_distribution"]
    ]
    distances = np.array(report["js_distance"], dtype=float)
    size = max(3.4, 0.36 * len(distances) + 0.6)
    if page.paper:
        figure, panels = _paper_panels(len(tasks), page)
    else:
        figure = new_figure(1.9 * len(tasks) + size + 0.3, max(3.6, size))
        widths = [*[1.9] * len(tasks), size]
        panels = list(figure.subplots(1, len(tasks) + 1, width_ratios=widths, squeeze=False)[0])
    for position, (axes, name) in enumerate(zip(panels, tasks, strict=False)):
        _bars(axes, report, name, page)
        if position == 0:
            axes.set_ylabel("training examples")
    _matrix(panels[-1], distances, report, page)
    return figure


def _paper_panels(num_tasks: int, page: Page) -> tuple[Figure, list[Axes]]:
    """Create the panels of bars and, beside or below them, that of the matrix; the two have separate layouts."""
    figure = new_figure(*page.inches((0.0, 0.0), 5.5 if page.narrow else 3.0))
    ratio = [2.6, 2.9] if page.narrow else [3.5, 3.5]
    if page.narrow:
        parts = figure.subfigures(2, 1, height_ratios=ratio, squeeze=False).flat
    else:
        parts = figure.subfigures(1, 2, width_ratios=ratio, squeeze=False).flat
    bars = parts[0].subplots(1, num_tasks, squeeze=False)[0] if num_tasks else []
    return figure, [*bars, parts[1].subplots()]


def _client_ticks(set_ticks: Callable[..., Any], clients: list[int], width: float | None) -> None:
    """Label the ticks with the clients' ids; on paper (`width` inches), with as many as fit."""
    spacing = 1 if width is None else math.ceil(_TICK * len(clients) / width)
    places = range(0, len(clients), spacing)
    set_ticks(places, [str(clients[place]) for place in places])


def label_order(report: dict[str, Any], task: str) -> list[str]:
    """Sort labels by descending count over all tasks split by the same attribute, so that those tasks share colours."""
    totals: dict[str, int] = {}
    for other, distribution in report["label_distribution"].items():
        if report["attribute"].get(other) == report["attribute"].get(task):
            for label, count in zip(distribution["labels"], np.sum(distribution["counts"], axis=0), strict=True):
                totals[str(label)] = totals.get(str(label), 0) + int(count)
    return sorted(totals, key=lambda label: (-totals[label], label))


def fold_labels(order: list[str], labels: list[str], counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the counts per client of the first seven labels of `order`; sum those of the rest as `other (n)`."""
    column = {label: counts[:, index] for index, label in enumerate(labels)}
    shown = {label: column[label] for label in order[:_MAX_LABELS] if label in column}
    rest = [label for label in order[_MAX_LABELS:] if label in column]
    if rest:
        shown[f"other ({len(rest)})"] = np.sum([column[label] for label in rest], axis=0)
    return shown


def _bars(axes: Axes, report: dict[str, Any], task: str, page: Page) -> None:
    clients = [client["client"] for client in report["clients"] if client["task"] == task]
    distribution = report["label_distribution"][task]
    order = label_order(report, task)
    labels = [str(label) for label in distribution["labels"]]
    base = np.zeros(len(clients))
    for label, counts in fold_labels(order, labels, np.array(distribution["counts"])).items():
        colour = OKABE_ITO[order.index(label)] if label in order[:_MAX_LABELS] else GREY
        axes.bar(range(len(clients)), counts, bottom=base, color=colour, label=label, edgecolor="white", lw=0.4)
        base += counts
    _client_ticks(axes.set_xticks, clients, _NARROW_PANEL if page.paper else None)
    axes.set_xlabel("client")
    named = f"{task}\nby {report['attribute'].get(task, 'label').replace('_', ' ')}"
    axes.set_title(named)
    if page.paper:
        axes.title.set_fontsize(page.points(7))
    below = axes.transAxes + ScaledTranslation(0, -_LEGEND_BELOW, axes.figure.dpi_scale_trans)
    place = {"bbox_to_anchor": (0.5, 0), "bbox_transform": below} if page.paper else {"bbox_to_anchor": (0.5, -0.17)}
    axes.legend(
        loc="upper center",
        **place,
        ncols=1 if page.paper else 2,
        fontsize=page.points(6.5),
        handlelength=1.0,
        columnspacing=0.8,
        handletextpad=0.4,
    )


def _matrix(axes: Axes, distances: np.ndarray, report: dict[str, Any], page: Page) -> None:
    clients = [client["client"] for client in report["clients"]]
    tasks = [client["task"] for client in report["clients"]]
    image = axes.imshow(distances, cmap="cividis", vmin=0, vmax=1)
    numbered = not page.paper or len(clients) <= _MOST_NUMBERED
    for row in range(len(clients)) if numbered else ():
        for column in range(len(clients)):
            value = distances[row, column]
            axes.text(
                column,
                row,
                f"{value:.2f}".removeprefix("0") if value < 1 else "1",
                ha="center",
                va="center",
                fontsize=page.points(6),
                color="black" if value > 0.55 else "white",
            )
    separate_tasks(axes, tasks)
    _client_ticks(axes.set_xticks, clients, _MATRIX if page.paper else None)
    _client_ticks(axes.set_yticks, clients, _MATRIX if page.paper else None)
    axes.set_xlabel("client")
    axes.set_ylabel("client")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title("Jensen-Shannon distance" if page.paper else "Jensen-Shannon distance between clients")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=DARK, length=2)
