"""Figure `losses`: training loss of every client, small multiples of tasks x methods."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pilot.matplotlib_import import Axes, Figure, FuncFormatter, Line2D, LogLocator, MaxNLocator, NullLocator
from pilot.report.numbers.load import Run, Task
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import DARK, GREY, OKABE_ITO, SkipFigure, Source, legend_below, legend_height, new_figure

_WINDOW = 5
_MAX_ROUND_NAMES = 5
_STYLES = ("-", "--", ":")
_COLOURS, _LINES = (OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[2], OKABE_ITO[5]), ("-", (0, (4, 1.5)), (0, (1, 1)), "-.")
"""Colours and line styles of the tasks on paper."""


@dataclass(frozen=True)
class Curve:
    """One client's losses over all its steps, and the steps at which rounds and phases begin."""

    client: int
    task: str
    losses: tuple[float, ...]
    rounds: tuple[tuple[int, int], ...]
    phases: tuple[int, ...]


def draw(source: Source, page: Page = SCREEN) -> Figure:
    """Draw the cross-entropy per local step (the total loss if a run records only that), lowest seed of each method.

    Faint lines are single steps, strong lines a centred mean of five. Solid vertical lines mark the start of a round,
    dotted ones that of a phase within a round. A client of no single task (pooled data) appears in every row. On paper
    there is a panel per method, with the mean and the range of each task's clients. Reads `rounds.jsonl`.
    """
    curves = {label: read_curves(run) for label, run in source.first_runs().items()}
    methods = [label for label in source.methods if curves[label]]
    if not methods:
        raise SkipFigure("no run of the chosen methods has losses in rounds.jsonl")
    tasks = source.tasks
    if page.paper:
        return _by_method({label: curves[label] for label in methods}, tasks, page)
    figure = new_figure(max(4.5, 1.75 * len(methods) + 0.6), 1.55 * len(tasks) + 0.85)
    panels = figure.subplots(len(tasks), len(methods), sharex="col", sharey="row", squeeze=False)
    for row, task in enumerate(tasks):
        for column, label in enumerate(methods):
            _panel(panels[row, column], curves[label], task, tasks, numbered=row == 0)
        panels[row, 0].set_ylabel(f"{task.name}\ncross-entropy")
        panels[row, 0].set_ylim(0, _ceiling(curves, task, tasks))
    for column, label in enumerate(methods):
        panels[0, column].set_title(label, pad=12)
        panels[-1, column].set_xlabel("local step")
    _legend(figure, max(len(task.clients) for task in tasks))
    return figure


def _by_method(curves: dict[str, list[Curve]], tasks: tuple[Task, ...], page: Page) -> Figure:
    """Draw a panel per method on a common scale, with the mean (smoothed) and the range of each task's clients."""
    rows = math.ceil(len(curves) / (3 if page.narrow else 6))
    columns = math.ceil(len(curves) / rows)
    handles = [Line2D([], [], color=_COLOURS[i], ls=_LINES[i], lw=1.0, label=task.name) for i, task in _cycle(tasks)]
    handles += [Line2D([], [], color=DARK, ls="-", lw=1.0, label="pooled data")] * _any_pooled(curves, tasks)
    figure = new_figure(
        *page.inches((0.0, 0.0), (0.82 if page.narrow else 0.95) * rows + legend_height(handles, page) + 0.25)
    )
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(curves) :]:
        axes.set_visible(False)
    for place, (axes, (label, found)) in enumerate(zip(panels.flat, curves.items(), strict=False)):
        _task_lines(axes, found, tasks)
        axes.set_title(label, fontsize=page.points(7), pad=2)
        if place + columns >= len(curves):
            axes.set_xlabel("round")
            axes.tick_params(labelbottom=True)
    panels[0, 0].xaxis.set_major_locator(MaxNLocator(3, integer=True))
    panels[0, 0].set_yscale("log")
    panels[0, 0].yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=4))
    panels[0, 0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[0, 0].yaxis.set_minor_locator(NullLocator())
    panels[0, 0].set_ylim(top=max(_ceiling(curves, task, tasks) for task in tasks))
    figure.supylabel("cross-entropy", fontsize=page.points(7))
    legend_below(figure, handles)
    return figure


def _task_lines(axes: Axes, curves: list[Curve], tasks: tuple[Task, ...]) -> None:
    names = {task.name for task in tasks}
    groups = [(_COLOURS[i], _LINES[i], [c for c in curves if c.task == task.name]) for i, task in _cycle(tasks)]
    groups.append((DARK, "-", [curve for curve in curves if curve.task not in names]))
    for colour, line, members in groups:
        if not members:
            continue
        length = min(len(curve.losses) for curve in members)
        values = np.array([_smooth(curve.losses[:length]) for curve in members])
        places = _in_rounds(min(members, key=lambda curve: len(curve.losses)))
        axes.fill_between(places, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, lw=0)
        axes.plot(places, values.mean(axis=0), color=colour, ls=line, lw=1.0)
    last = max(number for curve in curves for _, number in curve.rounds)
    for number in range(1, last):
        axes.axvline(number, color=GREY, lw=0.3, zorder=0)
    axes.set_xlim(0, last)


def _in_rounds(curve: Curve) -> np.ndarray:
    """Return the end of each step on an axis of rounds, since pooled data take more steps per round than a client."""
    starts = [step for step, _ in curve.rounds] + [len(curve.losses)]
    return np.concatenate(
        [
            number - 1 + np.arange(1, end - start + 1) / (end - start)
            for (start, number), end in zip(curve.rounds, starts[1:], strict=True)
            if end > start
        ]
    )


def _cycle(tasks: tuple[Task, ...]) -> Iterator[tuple[int, Task]]:
    """Yield each task with the index of its colour and line style."""
    return ((place % len(_COLOURS), task) for place, task in enumerate(tasks))


def _any_pooled(curves: dict[str, list[Curve]], tasks: tuple[Task, ...]) -> bool:
    names = {task.name for task in tasks}
    return any(curve.task not in names for found in curves.values() for curve in found)


def read_curves(run: Run) -> list[Curve]:
    """Read one curve per client of a run from `rounds.jsonl`."""
    losses: dict[int, list[float]] = {}
    tasks: dict[int, str] = {}
    starts: dict[int, list[tuple[int, int]]] = {}
    for line in run.rounds:
        for client in line["clients"]:
            terms, number = client.get("losses") or {}, client["client"]
            steps = terms.get("cross_entropy") or terms.get("total") or []
            starts.setdefault(number, []).append((len(losses.setdefault(number, [])), line["round"]))
            losses[number] += [np.nan if loss is None else loss for loss in steps]
            tasks[number] = client.get("task", "")
    return [
        _curve(number, tasks[number], losses[number], starts[number]) for number in sorted(losses) if losses[number]
    ]


def _curve(client: int, task: str, losses: list[float], starts: list[tuple[int, int]]) -> Curve:
    rounds: list[tuple[int, int]] = []
    phases: list[int] = []
    for step, number in starts:
        if number in [known for _, known in rounds]:
            phases.append(step)
        else:
            rounds.append((step, number))
    return Curve(client, task, tuple(losses), tuple(rounds), tuple(phases))


def _shown(curves: list[Curve], task: Task, tasks: tuple[Task, ...]) -> list[Curve]:
    names = {other.name for other in tasks}
    return [curve for curve in curves if curve.task == task.name or curve.task not in names]


def _panel(axes: Axes, curves: list[Curve], task: Task, tasks: tuple[Task, ...], *, numbered: bool) -> None:
    shown = _shown(curves, task, tasks)
    axes.grid(axis="y", color="#E5E5E5", lw=0.6)
    if not shown:
        axes.text(
            0.5,
            0.5,
            "no curve per client\n(one pooled model)",
            ha="center",
            va="center",
            transform=axes.transAxes,
            fontsize=7,
            color=DARK,
        )
        return
    for curve in shown:
        index = task.clients.index(curve.client) if curve.client in task.clients else 0
        pooled = curve.task != task.name
        colour = DARK if pooled else OKABE_ITO[index % len(OKABE_ITO)]
        steps = np.arange(1, len(curve.losses) + 1)
        axes.plot(steps, curve.losses, color=colour, lw=0.5, alpha=0.3)
        style = "-" if pooled else _STYLES[index % len(_STYLES)]
        axes.plot(steps, _smooth(curve.losses), color=colour, lw=1.1, ls=style)
    spacing = math.ceil(len(shown[0].rounds) / _MAX_ROUND_NAMES)
    for step, number in shown[0].rounds:
        axes.axvline(step + 0.5, color=DARK, lw=0.6)
        if numbered and (number - 1) % spacing == 0:
            axes.annotate(
                f"R{number}",
                (step + 0.5, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(1, 2),
                textcoords="offset points",
                fontsize=6.5,
                color=DARK,
            )
    for step in shown[0].phases:
        axes.axvline(step + 0.5, color=DARK, lw=0.8, ls=":")
    axes.set_xlim(0.5, max(len(curve.losses) for curve in shown) + 0.5)


def _smooth(losses: tuple[float, ...]) -> np.ndarray:
    half = _WINDOW // 2
    return np.array([np.mean(losses[max(0, i - half) : i + half + 1]) for i in range(len(losses))])


def _ceiling(curves: dict[str, list[Curve]], task: Task, tasks: tuple[Task, ...]) -> float:
    values = [value for found in curves.values() for curve in _shown(found, task, tasks) for value in curve.losses]
    finite = [value for value in values if np.isfinite(value)]
    return 1.1 * float(np.quantile(finite, 0.995)) if finite else 1.0


def _legend(figure: Figure, num_clients: int) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=OKABE_ITO[i % len(OKABE_ITO)],
            ls=_STYLES[i % len(_STYLES)],
            label=f"client {i + 1} of the task",
        )
        for i in range(num_clients)
    ]
    handles += [
        Line2D([], [], color=DARK, lw=0.6, marker="|", ms=9, ls="", label="round begins (R)"),
        Line2D([], [], color=DARK, lw=0.9, ls=":", label="next phase of the round"),
    ]
    legend_below(figure, handles)
