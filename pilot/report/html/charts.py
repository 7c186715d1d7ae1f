"""The page's charts, made with Altair and compiled to Vega, so that a browser only has to draw them.

The signal `shown` is the list of methods that are switched on; the controls beside each chart set its other signals.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from pilot.report.html import series
from pilot.report.html.look import (
    COLOURS,
    INK,
    IS_SHOWN,
    MOST_LABELS,
    Layers,
    bare,
    compiled,
    data,
    has_no_rows,
    heat_map,
    scales,
    shown,
    signal,
    slanted,
)
from pilot.report.html.protocol_charts import cross_task, curves
from pilot.report.plots.style import Source

_MOST_TICKS = 15
_COSTS = {
    **{"megabytes": "communicated, all clients and rounds (MB)", "parameters": "trainable parameters"},
    **{"teraflops": "training (TFLOP)", "seconds": "wall time of training (s)"},
}


def charts(source: Source) -> dict[str, dict[str, Any]]:
    """Build the charts as Vega specifications by name; a chart without data is left out."""
    labels, exchange = series.partition_rows(source)
    made = {
        "quality": _quality(source, series.quality_rows(source)),
        "clients": _clients(source, series.client_rows(source)),
        "losses": _losses(source, series.loss_rows(source)),
        "curves": curves(source, series.curve_rows(source)),
        "matrix": cross_task(source, series.cross_task_rows(source)),
        "router": _router(source, series.router_rows(source)),
        "neighbours": _neighbours(source, series.neighbour_rows(source)),
        "partition": _partition(source, labels),
        "divergence": _divergence(exchange),
    }
    return {name: compiled(chart) for name, chart in made.items() if chart is not None}


def _quality(source: Source, text: str) -> Layers | None:
    """Plot the chosen task's metric over the chosen cost; references are dashed lines."""
    tasks = [task.name for task in source.tasks if len(source.primary(task))]
    if not tasks:
        return None
    ink, form = scales(source)
    base = alt.Chart(data(text, ["mean", "ci_low", "ci_high", "reference", *_COSTS])).transform_filter(
        f"{IS_SHOWN} && datum.task == task"
    )
    rivals = base.transform_filter("datum.reference == 0").transform_calculate(cost="datum[cost]")
    rivals = rivals.transform_filter("isValid(datum.cost)")
    titles = json.dumps(_COSTS)
    x = alt.X("cost:Q", title=f"={titles}[cost]", scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(tickCount=7))
    tips = [
        alt.Tooltip("method:N"),
        *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("mean", "ci_low", "ci_high")),
        *(alt.Tooltip(f"{name}:Q", format=",.4~g") for name in _COSTS),
    ]
    y = alt.Y(
        "mean:Q", title="=task + ', ' + metric", scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(tickCount=6)
    )
    whiskers = rivals.mark_rule(strokeWidth=1.5, opacity=0.7).encode(x=x, y="ci_low:Q", y2="ci_high:Q", color=ink)
    points = rivals.mark_point(filled=True, size=110, opacity=1).encode(x=x, y=y, color=ink, shape=form, tooltip=tips)
    names = rivals.mark_text(align="left", dx=9, dy=-7, fontSize=11, fill=INK).encode(
        x=x, y="mean:Q", text="method:N", opacity=alt.value(alt.ExprRef(f"length(shown) <= {MOST_LABELS} ? 1 : 0"))
    )
    references = base.transform_filter("datum.reference == 1")
    lines = references.mark_rule(strokeDash=[5, 4], strokeWidth=1.5).encode(y="mean:Q", color=ink, tooltip=tips[:4])
    line_names = references.mark_text(align="left", dx=14, dy=-5, fontSize=11, fill=INK).encode(
        x=alt.value(0), y="mean:Q", text="method:N"
    )
    metrics = json.dumps({task.name: task.metric for task in source.tasks})
    metric = alt.param(name="metric", expr=f"({metrics})[task]")
    params = [shown(source), signal("task", tasks[0]), signal("cost", "megabytes"), metric]
    return alt.layer(lines, line_names, whiskers, points, names, width="container", height=380).add_params(*params)


def _clients(source: Source, text: str) -> Layers | None:
    """Plot methods by clients, coloured from each task's lowest to highest value; frames mark worst clients."""
    if has_no_rows(text):
        return None
    order = _client_names(source)
    base = (
        alt.Chart(data(text, ["value", "norm", "worst"]))
        .transform_filter(IS_SHOWN)
        .encode(
            x=alt.X("client:N", sort=order, title=None, axis=slanted(orient="top")),
            y=alt.Y("method:N", sort=source.methods, title=None, axis=bare()),
            tooltip=["method:N", "client:N", alt.Tooltip("value:Q", format=".3f")],
        )
    )
    return heat_map(base, "datum.worst == 1", ".3f").properties(height=alt.Step(22)).add_params(shown(source))


def _losses(source: Source, text: str) -> Layers | None:
    """Plot the chosen loss of the chosen task over rounds: mean over clients and seeds, band from lowest to highest."""
    if has_no_rows(text):
        return None
    ink, form = scales(source)
    tasks = [task.name for task in source.tasks]
    base = alt.Chart(data(text, ["round", "place", "mean", "low", "high"])).transform_filter(
        f"{IS_SHOWN} && datum.loss == loss && (datum.task == task || indexof({json.dumps(tasks)}, datum.task) < 0)"
        " && datum.low > 0"
    )
    rounds = series.rounds_of(text)[-1]
    ticks = list(range(0, rounds + 1, math.ceil(rounds / _MOST_TICKS)))
    x = alt.X(
        "place:Q",
        title="rounds trained",
        scale=alt.Scale(domain=[0, rounds], nice=False),
        axis=alt.Axis(values=ticks, format="d"),
    )
    band = base.mark_area(opacity=alt.ExprRef(f"length(shown) <= {MOST_LABELS} ? 0.12 : 0")).encode(
        x=x, y="low:Q", y2="high:Q", color=ink
    )
    y = alt.Y(
        "mean:Q", title="=task + ', ' + loss", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(tickCount=6)
    )
    line = base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=ink)
    values = [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("mean", "low", "high")]
    tips = ["method:N", "task:N", "round:Q", "phase:N", *values]
    points = base.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, color=ink, shape=form, tooltip=tips)
    params = [shown(source), signal("task", tasks[0]), signal("loss", series.LOSS_NAMES["cross_entropy"])]
    return alt.layer(band, line, points, width="container", height=340).add_params(*params)


def _router(source: Source, text: str) -> Layers | None:
    """Plot router weights of the chosen method's clients in the chosen round; frames mark their own task's adapter."""
    if has_no_rows(text):
        return None
    experts = [task.name for task in source.tasks]
    base = _matrix(source, text, ["round", "weight", "own"], "expert", experts, "adapter of")
    cells = base.mark_rect(stroke=INK, strokeOpacity=0.12).encode(
        color=alt.Color("weight:Q", scale=alt.Scale(scheme=COLOURS, domain=[0, 1]), title="weight"),
        tooltip=["method:N", "round:Q", "client:N", "expert:N", alt.Tooltip("weight:Q", format=".3f")],
    )
    frames = base.transform_filter("datum.own == 1").mark_rect(filled=False, stroke="#D55E00", strokeWidth=2.5)
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text("weight:Q", format=".2f"),
        color=alt.condition("datum.weight > 0.55", alt.value("black"), alt.value("white")),
    )
    return _with_rounds(alt.layer(cells, frames, numbers, width="container", height=alt.Step(26)), source, text)


def _neighbours(source: Source, text: str) -> Layers | None:
    """Plot the distances between text adapters in the chosen round; dots mark chosen neighbours."""
    if has_no_rows(text):
        return None
    order = _client_names(source)
    base = _matrix(source, text, ["round", "distance", "chosen", "weight"], "other", order, "other client")
    values = [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("distance", "weight")]
    tips = ["method:N", "round:Q", "client:N", "other:N", *values]
    cells = (
        base.transform_filter("isValid(datum.distance)")
        .mark_rect(stroke=INK, strokeOpacity=0.12)
        .encode(
            color=alt.Color("distance:Q", scale=alt.Scale(scheme=COLOURS, zero=False), title="distance"), tooltip=tips
        )
    )
    dots = (
        base.transform_filter("datum.chosen == 1")
        .mark_circle(size=75, color="#D55E00", stroke="white", strokeWidth=1, opacity=1)
        .encode(tooltip=tips)
    )
    return _with_rounds(alt.layer(cells, dots, width="container", height=alt.Step(26)), source, text)


def _client_names(source: Source) -> list[str]:
    return [f"{task.name} {client}" for task in source.tasks for client in task.clients]


def _matrix(
    source: Source, text: str, numbers: Sequence[str], across: str, order: Sequence[str], title: str
) -> alt.Chart:
    chart = alt.Chart(data(text, numbers)).transform_filter("datum.method == method && datum.round == round")
    return chart.encode(
        x=alt.X(f"{across}:N", sort=list(order), title=title, axis=slanted()),
        y=alt.Y("client:N", sort=_client_names(source), title=None, axis=bare()),
    )


def _with_rounds(chart: Layers, source: Source, text: str) -> Layers:
    first = next(label for label in source.methods if f"\n{label}," in text or f'\n"{label}",' in text)
    return chart.add_params(signal("method", first), signal("round", series.rounds_of(text)[-1]))


def _partition(source: Source, text: str) -> alt.Chart | None:
    """Plot the training examples of the chosen task's clients by label, as counts or shares."""
    if has_no_rows(text):
        return None
    chart = alt.Chart(data(text, ["count"])).transform_filter("datum.task == task")
    chart = chart.transform_joinaggregate(all="sum(count)", groupby=["client"])
    chart = chart.transform_calculate(share="datum.count / datum.all", value="shares ? datum.share : datum.count")
    return (
        chart.mark_bar(stroke=INK, strokeOpacity=0.25)
        .encode(
            x=alt.X("value:Q", title="=shares ? 'share of the training examples' : 'training examples'", stack="zero"),
            y=alt.Y("client:N", title=None, axis=bare()),
            color=alt.Color(
                "label:N",
                scale=alt.Scale(scheme="tableau20"),
                legend=alt.Legend(orient="bottom", columns=3, title=None),
            ),
            order=alt.Order("label:N"),
            tooltip=["client:N", "label:N", "count:Q", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(width="container", height=alt.Step(34))
        .add_params(signal("task", source.tasks[0].name), signal("shares", False))
    )


def _divergence(text: str) -> Layers | None:
    """Plot the Jensen-Shannon distances between the clients' label distributions."""
    if has_no_rows(text):
        return None
    names = list(dict.fromkeys(line.split(",")[0] for line in text.splitlines()[1:]))
    base = alt.Chart(data(text, ["distance"])).encode(
        x=alt.X("other:N", sort=names, title="other client", axis=slanted()),
        y=alt.Y("client:N", sort=names, title=None, axis=bare()),
        tooltip=["client:N", "other:N", alt.Tooltip("distance:Q", format=".3f")],
    )
    cells = base.mark_rect(stroke=INK, strokeOpacity=0.12).encode(
        color=alt.Color("distance:Q", scale=alt.Scale(scheme=COLOURS, domain=[0, 1]), legend=None)
    )
    numbers = base.mark_text(fontSize=10).encode(
        text=alt.Text("distance:Q", format=".2f"),
        color=alt.condition("datum.distance > 0.55", alt.value("black"), alt.value("white")),
    )
    return alt.layer(cells, numbers, width="container", height=alt.Step(26))
