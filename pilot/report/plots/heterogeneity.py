"""Figure `heterogeneity`: what the partition gave to whom."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pilot.io.atomic import read_json
from pilot.report.plots.style import DARK, GREY, OKABE_ITO, SkipFigure, Source, new_figure

_MAX_LABELS = 7


def draw(source: Source) -> Figure:
    """Stacked label counts per client for each task, and the Jensen-Shannon distances between all clients.

    Labels beyond the seven most frequent of a task are drawn together as `other`. Reads
    `partition/heterogeneity.json`.
    """
    path = source.scenario_dir / "partition" / "heterogeneity.json"
    if not path.exists():
        raise SkipFigure(f"{path} is missing (partition the scenario first)")
    report = read_json(path)
    tasks = [
        name
        for name in dict.fromkeys(client["task"] for client in report["clients"])
        if name in report["label_distribution"]
    ]
    distances = np.array(report["js_distance"], dtype=float)
    size = max(3.4, 0.36 * len(distances) + 0.6)
    figure = new_figure(1.9 * len(tasks) + size + 0.3, max(3.6, size))
    panels = figure.subplots(1, len(tasks) + 1, width_ratios=[*[1.9] * len(tasks), size], squeeze=False)[0]
    for position, (axes, name) in enumerate(zip(panels, tasks, strict=False)):
        _bars(axes, report, name)
        if position == 0:
            axes.set_ylabel("training examples")
    _matrix(panels[-1], distances, report)
    return figure


def label_order(report: dict[str, Any], task: str) -> list[str]:
    """Labels by falling count over all tasks split by the same attribute, which then share colours."""
    totals: dict[str, int] = {}
    for other, distribution in report["label_distribution"].items():
        if report["attribute"].get(other) == report["attribute"].get(task):
            for label, count in zip(distribution["labels"], np.sum(distribution["counts"], axis=0), strict=True):
                totals[str(label)] = totals.get(str(label), 0) + int(count)
    return sorted(totals, key=lambda label: (-totals[label], label))


def fold_labels(order: list[str], labels: list[str], counts: np.ndarray) -> dict[str, np.ndarray]:
    """Counts per client of the first seven labels of `order` and, summed as `other (n)`, of the rest."""
    column = {label: counts[:, index] for index, label in enumerate(labels)}
    shown = {label: column[label] for label in order[:_MAX_LABELS] if label in column}
    rest = [label for label in order[_MAX_LABELS:] if label in column]
    if rest:
        shown[f"other ({len(rest)})"] = np.sum([column[label] for label in rest], axis=0)
    return shown


def _bars(axes: Axes, report: dict[str, Any], task: str) -> None:
    clients = [client["client"] for client in report["clients"] if client["task"] == task]
    distribution = report["label_distribution"][task]
    order = label_order(report, task)
    labels = [str(label) for label in distribution["labels"]]
    base = np.zeros(len(clients))
    for label, counts in fold_labels(order, labels, np.array(distribution["counts"])).items():
        colour = OKABE_ITO[order.index(label)] if label in order[:_MAX_LABELS] else GREY
        axes.bar(range(len(clients)), counts, bottom=base, color=colour, label=label, edgecolor="white", lw=0.4)
        base += counts
    axes.set_xticks(range(len(clients)), [f"{client}" for client in clients])
    axes.set_xlabel("client")
    axes.set_title(f"{task}\nby {report['attribute'].get(task, 'label').replace('_', ' ')}")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=2,
        fontsize=6.5,
        handlelength=1.0,
        columnspacing=0.8,
        handletextpad=0.4,
    )


def _matrix(axes: Axes, distances: np.ndarray, report: dict[str, Any]) -> None:
    clients = [client["client"] for client in report["clients"]]
    tasks = [client["task"] for client in report["clients"]]
    image = axes.imshow(distances, cmap="cividis", vmin=0, vmax=1)
    for row in range(len(clients)):
        for column in range(len(clients)):
            value = distances[row, column]
            axes.text(
                column,
                row,
                f"{value:.2f}".removeprefix("0") if value < 1 else "1",
                ha="center",
                va="center",
                fontsize=6,
                color="black" if value > 0.55 else "white",
            )
    for place in range(1, len(tasks)):
        if tasks[place] != tasks[place - 1]:
            axes.axhline(place - 0.5, color="white", lw=1.5)
            axes.axvline(place - 0.5, color="white", lw=1.5)
    axes.set_xticks(range(len(clients)), clients)
    axes.set_yticks(range(len(clients)), clients)
    axes.set_xlabel("client")
    axes.set_ylabel("client")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title("Jensen-Shannon distance between clients")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=DARK, length=2)
