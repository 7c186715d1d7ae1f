"""Figures `router` and `distances` of Pilot: weights in its mixture of adapters, distances in its text aggregation."""

import math
import textwrap
from dataclasses import dataclass

import numpy as np

from pilot.matplotlib_import import Axes, AxesImage, Figure, Rectangle
from pilot.report.numbers.load import Run
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import OKABE_ITO, SkipFigure, Source, new_figure, separate_tasks

METHOD = "pilot"
_TICK, _NAME = 0.17, 10
"""On paper: width of a tick label in inches, characters of a task's name per line."""


def draw_router(source: Source, page: Page = SCREEN) -> Figure:
    """Draw the mean router weight of each task's adapter, by the client's task, in the last round of every seed.

    Columns are in scenario order; the framed cell is the client's own task (expert 1 of its mixture). The
    small numbers are the lowest and the highest client's weight. Reads `rounds.jsonl` (`router_probabilities`).
    """
    runs = _runs(source)
    tasks = source.tasks
    weights = {task.name: last_router_weights(runs, task.name) for task in tasks}
    found = [task for task in tasks if len(weights[task.name])]
    if not found:
        raise SkipFigure(f"rounds.jsonl of {METHOD} records no router_probabilities")
    names = [task.name for task in tasks]
    means = np.array([weights[task.name].mean(axis=0) for task in found])
    top = max(1.0 / len(names), float(means.max()))
    height = (0.45 if page.narrow else 0.5) * len(found) + 0.6
    figure = new_figure(*page.inches((1.25 * len(names) + 2.4, 0.8 * len(found) + 1.35), height))
    axes = figure.subplots()
    image = axes.imshow(means, cmap="cividis", vmin=0, vmax=top, aspect="auto")
    for row, task in enumerate(found):
        _router_row(axes, row, weights[task.name], top, page)
        place = (names.index(task.name) - 0.47, row - 0.46)
        axes.add_patch(Rectangle(place, 0.94, 0.92, fill=False, ec=OKABE_ITO[1], lw=2))
    shown = [textwrap.fill(name, _NAME) if page.narrow else name for name in names]
    axes.set_xticks(range(len(names)), shown)
    axes.set_yticks(range(len(found)), [shown[names.index(task.name)] for task in found])
    axes.set_xlabel("task whose adapter the router weighs")
    axes.set_ylabel("client's task")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if not page.paper:
        axes.set_title(
            f"{METHOD}: router weights in the last round, mean over clients and seeds (n = {len(runs)})\n"
            f"framed: own task; uniform: {1 / len(names):.2f}; small: lowest to highest client"
        )
    figure.colorbar(image, ax=axes, pad=0.02).outline.set_visible(False)
    return figure


def _router_row(axes: Axes, row: int, clients: np.ndarray, top: float, page: Page) -> None:
    for column, mean in enumerate(clients.mean(axis=0)):
        ink = "black" if mean > 0.55 * top else "white"
        low, high = clients[:, column].min(), clients[:, column].max()
        axes.text(column, row - 0.1, f"{mean:.2f}", ha="center", va="center", fontsize=page.points(10), color=ink)
        text = f"{low:.2f}\N{EN DASH}{high:.2f}" if page.paper else f"{low:.2f} to {high:.2f}"
        axes.text(column, row + 0.22, text, ha="center", va="center", fontsize=page.points(6.5), color=ink)


@dataclass(frozen=True)
class Aggregation:
    """The text-adapter distances between all clients at one aggregation, and the neighbours that each client chose.

    Rows and columns are client ids; those of a client that missed the round are NaN.
    """

    round: int
    phase: str
    distances: np.ndarray
    neighbours: dict[int, list[int]]

    def off_diagonal(self) -> np.ma.MaskedArray:
        """Return the distances between the participating clients; mask the diagonal and absent clients."""
        own = np.eye(len(self.distances), dtype=bool)
        return np.ma.masked_where(own | np.isnan(self.distances), self.distances)


def draw_distances(source: Source, page: Page = SCREEN) -> Figure:
    """Draw the distances between the clients' text adapters before the first and the last aggregation, lowest seed.

    A dot in a row marks a neighbour that the row's client averages with. Reads `rounds.jsonl`
    (`aggregation`).
    """
    run = min(_runs(source), key=lambda run: run.seed)
    every = read_aggregations(run)
    if not every:
        raise SkipFigure(f"rounds.jsonl of {METHOD} records no text-adapter distances")
    shown = every[:1] if len(every) == 1 else [every[0], every[-1]]
    tasks = [task.name for task in source.tasks for _ in task.clients]
    size = 0.36 * len(shown[0].distances) + 0.8
    figure = new_figure(*page.inches((size * len(shown) + 1.4, size + 0.75), (page.width or 0.0) / len(shown) - 0.05))
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    values = np.concatenate([aggregation.off_diagonal().compressed() for aggregation in shown])
    if not values.size:
        raise SkipFigure(f"no shown aggregation of {METHOD} had two clients")
    for axes, aggregation in zip(panels, shown, strict=True):
        image = _distances(axes, aggregation, tasks, (float(values.min()), float(values.max())), page)
    figure.colorbar(image, ax=panels, shrink=0.75, pad=0.02).outline.set_visible(False)
    if not page.paper:
        figure.suptitle(
            f"{METHOD}, seed {run.seed}: distance between clients' text adapters (dot: chosen neighbour)",
            fontsize=9,
        )
    return figure


def last_router_weights(runs: list[Run], task: str) -> np.ndarray:
    """Return the last router weights of every client of `task` in each run, shape (clients x runs, tasks)."""
    rows = []
    for run in runs:
        last: dict[int, list[float]] = {}
        for line in run.rounds:
            for client in line["clients"]:
                if client["task"] == task and (client.get("diagnostics") or {}).get("router_probabilities"):
                    last[client["client"]] = client["diagnostics"]["router_probabilities"]
        rows += [last[number] for number in sorted(last)]
    return np.array(rows, dtype=float)


def read_aggregations(run: Run) -> list[Aggregation]:
    """Read every aggregation of a run that recorded distances, in order."""
    found = []
    for line in run.rounds:
        aggregation = line.get("aggregation") or {}
        if aggregation.get("distances"):
            chosen = {int(key): list(value) for key, value in (aggregation.get("neighbours") or {}).items()}
            present = aggregation["clients"]
            table = np.full((sum(len(task.clients) for task in run.tasks),) * 2, np.nan)
            table[np.ix_(present, present)] = aggregation["distances"]
            found.append(Aggregation(line["round"], line["phase"], table, chosen))
    return found


def _runs(source: Source) -> list[Run]:
    labels = sorted({run.label for run in source.runs if run.method == METHOD})
    if not labels:
        raise SkipFigure(f"there is no run of {METHOD} among the chosen methods")
    return source.seeds(labels[0])


def _distances(
    axes: Axes, aggregation: Aggregation, tasks: list[str], limits: tuple[float, float], page: Page
) -> AxesImage:
    count = len(aggregation.distances)
    image = axes.imshow(aggregation.off_diagonal(), cmap="cividis", vmin=limits[0], vmax=limits[1])
    axes.set_facecolor("#EEEEEE")
    for client, neighbours in aggregation.neighbours.items():
        size, line = (9 if page.narrow else 16, 0.5) if page.paper else (26, 0.9)
        places = [client] * len(neighbours)
        axes.scatter(neighbours, places, s=size, color=OKABE_ITO[1], edgecolor="white", linewidth=line)
    separate_tasks(axes, tasks[:count])
    spacing = math.ceil(count * _TICK / (1.0 if page.narrow else 2.5)) if page.paper else 1
    axes.set_xticks(range(0, count, spacing))
    axes.set_yticks(range(0, count, spacing))
    axes.set_xlabel("other client")
    axes.set_ylabel("client")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(f"round {aggregation.round}{',' if page.narrow else ', after'} {aggregation.phase}")
    return image
