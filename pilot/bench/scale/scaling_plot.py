"""Figure `scaling`: CPU seconds over rounds, clients and examples, each beside proportional cost."""

from collections.abc import Mapping
from typing import Any

from pilot.matplotlib_import import Axes, Figure
from pilot.report.plots.style import GREY, MARKERS, OKABE_ITO, legend_below, new_figure

_LINE: dict[str, Any] = {"lw": 1.4, "ms": 5.5, "mec": "white", "mew": 0.6, "ls": "-"}


def draw(report: Mapping[str, Any]) -> Figure:
    """Draw one panel per dimension from the content of `results/bench/scaling.json`."""
    figure = new_figure(9.6, 4.0)
    rows = report["rows"]
    panels = figure.subplots(1, len(rows))
    names = list(dict.fromkeys(part for measurements in rows.values() for part in measurements[-1]["parts"]))
    for axes, (dimension, measurements) in zip(panels, rows.items(), strict=True):
        for index, name in enumerate(names):
            if name in measurements[0]["parts"]:
                _line(axes, measurements, name, index)
        _guide(axes, measurements)
        factors = [row["factor"] for row in measurements]
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(factors, [f"{factor}x" for factor in factors])
        axes.minorticks_off()
        axes.set_xlabel(f"{dimension} (1x is {report['sizes'][dimension]})")
        axes.grid(color="#E5E5E5", lw=0.6)
    panels[0].set_ylabel("CPU seconds, one thread")
    handles = {handle.get_label(): handle for axes in panels for handle in axes.get_legend_handles_labels()[0]}
    legend_below(figure, list(handles.values()))
    return figure


def _line(axes: Axes, measurements: list[Mapping[str, Any]], name: str, index: int) -> None:
    factors = [row["factor"] for row in measurements]
    seconds = [row["parts"][name]["cpu_seconds"] for row in measurements]
    marker, colour = MARKERS[index % len(MARKERS)], OKABE_ITO[index % len(OKABE_ITO)]
    axes.plot(factors, seconds, marker, color=colour, label=name, **_LINE)


def _guide(axes: Axes, measurements: list[Mapping[str, Any]]) -> None:
    """Draw proportional cost through the last point of the most expensive part."""
    last = measurements[-1]
    most = max(part["cpu_seconds"] for part in last["parts"].values())
    factors = [row["factor"] for row in measurements]
    guide = [most * factor / last["factor"] for factor in factors]
    axes.plot(factors, guide, color=GREY, ls=":", lw=1.0, label="proportional")
