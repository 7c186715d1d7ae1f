"""The page's charts of curves and of models on other tasks; see `charts`."""

import json

import altair as alt

from pilot.report.html import series
from pilot.report.html.look import (
    INK,
    IS_SHOWN,
    MOST_LABELS,
    Layers,
    bare,
    data,
    has_no_rows,
    heat_map,
    scales,
    shown,
    signal,
    slanted,
)
from pilot.report.plots.style import Source

_CURVE_AXES = {
    "round": "rounds", "megabytes": "bytes sent up and down, all clients (MB)", "steps": "optimiser steps, all clients",
    "time": "virtual time, in steps of a client of speed 1",
}  # fmt: skip


def curve_axes(source: Source) -> dict[str, str]:
    """Return the titles of the curves' axes by column; time is one of them if runs have a virtual clock."""
    return {name: title for name, title in _CURVE_AXES.items() if name != "time" or source.timed}


def curves(source: Source, text: str) -> Layers | None:
    """Plot the chosen task's metric over the chosen axis; methods that have one value on it are dashed lines."""
    if max(series.rounds_of(text), default=0) == 0:
        return None
    ink, form = scales(source)
    axes = curve_axes(source)
    numbers = [*axes, "mean", "ci_low", "ci_high", "untrained", "silent", "last"]
    base = (
        alt.Chart(data(text, numbers))
        .transform_filter(f"{IS_SHOWN} && datum.task == task")
        .transform_calculate(place="datum[axis]")
        .transform_calculate(level="datum.untrained || (axis == 'megabytes' && datum.silent)")
    )
    titles = json.dumps(axes)
    x = alt.X("place:Q", title=f"={titles}[axis]", scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(tickCount=7))
    y = alt.Y(
        "mean:Q", title="=task + ', ' + metric", scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(tickCount=6)
    )
    tips = [
        alt.Tooltip("method:N"),
        *(alt.Tooltip(f"{name}:Q", format=",.4~g") for name in axes),
        *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("mean", "ci_low", "ci_high")),
    ]
    moving = base.transform_filter("!datum.level")
    few = alt.ExprRef(f"length(shown) <= {MOST_LABELS} ? 0.6 : 0")
    whiskers = moving.mark_rule(strokeWidth=1.5, opacity=few).encode(x=x, y="ci_low:Q", y2="ci_high:Q", color=ink)
    line = moving.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=ink)
    points = moving.mark_point(filled=True, size=60, opacity=1).encode(x=x, y=y, color=ink, shape=form, tooltip=tips)
    level = base.transform_filter("datum.level && datum.last")
    lines = level.mark_rule(strokeDash=[5, 4], strokeWidth=1.5).encode(y="mean:Q", color=ink, tooltip=tips)
    names = level.mark_text(align="left", dx=4, dy=-5, fontSize=11, fill=INK).encode(
        x=alt.value(0), y="mean:Q", text="method:N"
    )
    metrics = json.dumps({task.name: task.metric for task in source.tasks})
    params = [
        shown(source), signal("task", source.tasks[0].name), signal("axis", "round"),
        alt.param(name="metric", expr=f"({metrics})[task]"),
    ]  # fmt: skip
    return alt.layer(lines, names, whiskers, line, points, width="container", height=340).add_params(*params)


def cross_task(source: Source, text: str) -> Layers | None:
    """Plot methods by whose models are asked about which task; frames mark clients on their own task."""
    if has_no_rows(text):
        return None
    tasks = [task.name for task in source.tasks]
    order = [series.cross_task_name(own, asked) for own in tasks for asked in tasks]
    base = (
        alt.Chart(data(text, ["value", "norm", "own"]))
        .transform_filter(IS_SHOWN)
        .encode(
            x=alt.X("cell:N", sort=order, title=None, axis=slanted(orient="top")),
            y=alt.Y("method:N", sort=source.methods, title=None, axis=bare()),
            tooltip=["method:N", "models:N", "asked:N", alt.Tooltip("value:Q", format=".3f")],
        )
    )
    return heat_map(base, "datum.own == 1", ".2f").properties(height=alt.Step(22)).add_params(shown(source))
