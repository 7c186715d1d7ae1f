"""Shared parts of the page's charts: theme, compilation to Vega, and the methods' colours and marks.

Texts and lines are `currentColor`, so that the page's light and dark themes apply without redrawing.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import altair as alt

from pilot.report.plots.style import DARK, Source, method_style

Layers = alt.LayerChart | alt.FacetChart
INK = "currentColor"
COLOURS: Final[Literal["cividis"]] = "cividis"
MOST_LABELS = 9
_SHAPES = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross"},
    **{"X": "M-.7,-1L0,-.3L.7,-1L1,-.7L.3,0L1,.7L.7,1L0,.3L-.7,1L-1,.7L-.3,0L-1,-.7Z"},
    **{"*": "M0,-1L.25,-.3L1,-.3L.4,.15L.6,.9L0,.45L-.6,.9L-.4,.15L-1,-.3L-.25,-.3Z"},
    **{"p": "M0,-1L.95,-.31L.59,.81L-.59,.81L-.95,-.31Z", "h": "M0,-1L.87,-.5L.87,.5L0,1L-.87,.5L-.87,-.5Z"},
    **{"<": "triangle-left", ">": "triangle-right", "d": "M0,-1L.6,0L0,1L-.6,0Z"},
    **{"8": "M-.4,-1L.4,-1L1,-.4L1,.4L.4,1L-.4,1L-1,.4L-1,-.4Z", "H": "M-1,0L-.5,-.87L.5,-.87L1,0L.5,.87L-.5,.87Z"},
}
_SHAPES |= {  # letters and thin crosses
    "$+$": "M-.15,-1L.15,-1L.15,-.15L1,-.15L1,.15L.15,.15L.15,1L-.15,1L-.15,.15L-1,.15L-1,-.15L-.15,-.15Z",
    "$x$": "M-.85,-1L0,-.2L.85,-1L1,-.85L.2,0L1,.85L.85,1L0,.2L-.85,1L-1,.85L-.2,0L-1,-.85Z",
    "$T$": "M-.8,-.9L.8,-.9L.8,-.55L.2,-.55L.2,.9L-.2,.9L-.2,-.55L-.8,-.55Z",
    "$Y$": "M-.15,0L-.15,1L.15,1L.15,0L.9,-.65L.72,-.9L0,-.3L-.72,-.9L-.9,-.65Z",
    "$V$": "M-.8,-.9L-.4,-.9L0,.3L.4,-.9L.8,-.9L.2,.9L-.2,.9Z",
    "$Z$": "M-.8,-.9L.8,-.9L.8,-.6L-.2,.55L.8,.55L.8,.9L-.8,.9L-.8,.6L.2,-.55L-.8,-.55Z",
    "$N$": "M-.7,.9L-.7,-.9L-.35,-.9L.35,.3L.35,-.9L.7,-.9L.7,.9L.35,.9L-.35,-.3L-.35,.9Z",
    "$L$": "M-.6,-.9L-.2,-.9L-.2,.55L.6,.55L.6,.9L-.6,.9Z",
}
_AXIS: dict[str, Any] = {
    **dict.fromkeys(("labelColor", "titleColor", "tickColor", "domainColor", "gridColor"), INK),
    **{"gridOpacity": 0.13, "tickOpacity": 0.4, "domainOpacity": 0.4, "titleFontWeight": "normal"},
    **{"labelFontSize": 11, "titleFontSize": 12, "labelLimit": 220},
}
IS_SHOWN = "indexof(shown, datum.method) >= 0"


def method_marks(source: Source) -> list[Mapping[str, Any]]:
    """Return name, colour, symbol and kind of every method, for the page's switches."""
    return [
        {"name": label, "colour": colour(label), "shape": shape(label), "reference": source.is_reference(label)}
        for label in source.methods
    ]


def colour(label: str) -> str:
    """Return a method's colour on the page: that of all figures, except that the darkest is the text colour."""
    found = method_style(label).colour
    return INK if found == DARK else found


def shape(label: str) -> str:
    """Return a method's marker as a Vega symbol."""
    return _SHAPES[method_style(label).marker]


def compiled(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Compile a chart to a Vega specification with the page's theme.

    An axis title that starts with `=` is a signal expression, which Vega supports and Vega-Lite does not.
    """
    import vl_convert

    plain = chart.configure(
        background="transparent",
        font="system-ui, sans-serif",
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(**_AXIS),
        legend=alt.LegendConfig(labelColor=INK, titleColor=INK, labelFontSize=11, titleFontSize=12, labelLimit=180),
    )
    spec: dict[str, Any] = vl_convert.vegalite_to_vega(json.dumps(plain.to_dict(), sort_keys=True))
    for axis in spec.get("axes", ()):
        if str(axis.get("title", "")).startswith("="):
            axis["title"] = {"signal": axis["title"][1:]}
    return spec


def data(text: str, numbers: Sequence[str]) -> alt.InlineData:
    """Wrap CSV text as a chart's inline data; parse the columns `numbers` as numbers."""
    return alt.InlineData(values=text, format=alt.CsvDataFormat(type="csv", parse=dict.fromkeys(numbers, "number")))


def scales(source: Source) -> tuple[alt.Color, alt.Shape]:
    """Return the colour and shape encodings of the methods, without legends."""
    methods = source.methods
    colours = alt.Scale(domain=methods, range=[colour(label) for label in methods])
    shapes = alt.Scale(domain=methods, range=[shape(label) for label in methods])
    return alt.Color("method:N", scale=colours, legend=None), alt.Shape("method:N", scale=shapes, legend=None)


def shown(source: Source) -> alt.Parameter:
    """Create the parameter `shown`: the methods that are switched on, initially all."""
    return alt.param(name="shown", value=source.methods)


def signal(name: str, value: Any) -> alt.Parameter:
    """Create a parameter with an initial value."""
    return alt.param(name=name, value=value)


def bare() -> alt.Axis:
    """Create an axis without ticks and line."""
    return alt.Axis(ticks=False, domain=False)


def slanted(**more: Any) -> alt.Axis:
    """Create an axis with slanted labels, without ticks and line."""
    return alt.Axis(labelAngle=-35, ticks=False, domain=False, **more)


def heat_map(base: alt.Chart, framed: str, form: str) -> Layers:
    """Layer cells coloured by the column `norm` (0..1), frames where the expression `framed` holds, and `value`."""
    fill = alt.Color("norm:Q", scale=alt.Scale(scheme=COLOURS, domain=[0, 1]), legend=None)
    cells = base.mark_rect(stroke=INK, strokeOpacity=0.12).encode(color=fill)
    frames = base.transform_filter(framed).mark_rect(filled=False, stroke="#D55E00", strokeWidth=2.5)
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text("value:Q", format=form),
        color=alt.condition("datum.norm > 0.55", alt.value("black"), alt.value("white")),
    )
    return alt.layer(cells, frames, numbers, width="container")


def has_no_rows(text: str) -> bool:
    """Return whether CSV text has only a header."""
    return text.count("\n") < 2
