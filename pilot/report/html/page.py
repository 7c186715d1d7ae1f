"""`report.html`: a self-contained page that makes no network requests."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from pilot.errors import UserError
from pilot.io.atomic import write_text
from pilot.io.layout import existing_scenario_folder
from pilot.report.html.charts import charts
from pilot.report.html.leaderboard import leaderboard, read_grid
from pilot.report.html.look import method_marks
from pilot.report.html.origin import provenance
from pilot.report.html.protocol_charts import curve_axes
from pilot.report.html.samples import PER_TASK, sample_browser
from pilot.report.html.series import values_of
from pilot.report.html.tables import page_tables
from pilot.report.numbers.comparable import check_comparable
from pilot.report.numbers.load import load_methods
from pilot.report.plots.mixture import read_aggregations
from pilot.report.plots.style import SkipFigure, Source

NAME = "report.html"
SCRIPTS = ("core.js", "board.js", "charts.js", "samples.js", "start.js")
_SECTIONS = {
    "leaderboard": ("Leaderboard", None),
    "quality": ("Quality and cost", ("quality",)),
    "clients": ("Clients", ("clients",)),
    "curves": ("Curves", ("curves",)),
    "matrix": ("Across tasks", ("matrix",)),
    "unseen": ("Unseen clients", None),
    "conditions": ("Imaging conditions", None),
    "forgetting": ("Forgetting", None),
    "privacy": ("What messages reveal", None),
    "losses": ("Losses", ("losses",)),
    "exchange": ("Router and neighbours", ("router", "neighbours")),
    "partition": ("Partition", ("partition",)),
    "samples": ("Samples", None),
    "provenance": ("Provenance", None),
}
_COSTS = {
    **{"megabytes": "bytes sent (MB)", "parameters": "trainable parameters"},
    **{"teraflops": "training FLOPs (10^12)", "seconds": "wall time of training (s)"},
}


def write_report(scenario_dir: Path, methods: Sequence[str] | None = None, samples: int = PER_TASK) -> Path:
    """Write a scenario's `report.html` from its tables and runs; equal results give equal bytes, except wall times.

    Args:
        scenario_dir: `results/<profile>/<scenario>`, with `tables/`.
        methods: the methods to show; by default all that have runs.
        samples: largest number of test examples per task in the sample browser.

    Returns:
        The file written.

    Raises:
        UserError: no runs, an unfinished run, runs that cannot be compared, or tables that are missing or lack a
            method.
    """
    runs = load_methods(existing_scenario_folder(scenario_dir), methods)
    check_comparable(runs, allow=["seeds"])
    source = Source(scenario_dir, tuple(runs))
    try:
        text = page(source, samples)
    except SkipFigure as reason:
        raise UserError(f"{scenario_dir}: {reason}. Run: pilot-bench tables {scenario_dir}") from reason
    write_text(scenario_dir / NAME, text)
    return scenario_dir / NAME


def page(source: Source, samples: int) -> str:
    """Render the page as HTML."""
    grid = read_grid(source)
    drawn = charts(source)
    config = source.runs[0].config
    tables = page_tables(source)
    empty = {name for name in ("unseen", "conditions", "forgetting", "privacy") if not tables[name]["lines"]}
    data = {
        "methods": method_marks(source),
        "board": leaderboard(source, grid),
        "charts": drawn,
        "choices": _choices(source, drawn),
        "samples": sample_browser(source, samples),
    }
    return _template().render(
        title=f"{source.scenario} ({config['profile']})",
        scenario=source.scenario,
        profile=config["profile"],
        lead=_summary(source),
        notes=grid["footnotes"],
        sections=[
            {"id": name, "title": title}
            for name, (title, needed) in _SECTIONS.items()
            if any(chart in drawn for chart in needed or ()) or (needed is None and name not in empty)
        ],
        charts=drawn,
        **tables,
        provenance=provenance(source),
        data={name: _json(value) for name, value in data.items()},
        style=_asset("style.css"),
        script="\n".join(_asset(name) for name in SCRIPTS),
        library=_library(),
        version=version("pilot-bench"),
        pairs=_pairs,
        compact=_compact,
    )


def _summary(source: Source) -> str:
    rivals = [label for label in source.methods if not source.is_reference(label)]
    clients = sum(len(task.clients) for task in source.tasks)
    seeds = len({run.seed for run in source.runs})
    title = source.runs[0].config.get("scenario_config", {}).get("title", "")
    tasks = ", ".join(task.name for task in source.tasks)
    return (
        f"{title + ': ' if title else ''}{len(rivals)} methods and {len(source.methods) - len(rivals)} references, "
        f"{clients} clients with {len(source.tasks)} tasks ({tasks}), {seeds} seed{'s' if seeds > 1 else ''}."
    )


def _choices(source: Source, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values and labels of the controls beside the charts."""
    losses = _column(drawn, "losses", "loss")
    return {
        "tasks": [[task.name, f"{task.name} ({task.metric})"] for task in source.tasks],
        "costs": [[name, text] for name, text in _COSTS.items()],
        "axes": [[name, text] for name, text in curve_axes(source).items()],
        "losses": [[name, name] for name in losses],
        "exchange": _exchange(source),
    }


def _column(drawn: Mapping[str, Any], chart: str, name: str) -> list[str]:
    """Return the distinct values of a column of a chart's data, in order of appearance."""
    for data in drawn.get(chart, {}).get("data", ()):
        if isinstance(data.get("values"), str):
            return values_of(data["values"], name)
    return []


def _exchange(source: Source) -> list[dict[str, Any]]:
    """List the rounds of each method that records router weights or distances, and the rounds with each of them."""
    entries = []
    for label in source.methods:
        routed, every = set(), set()
        for run in source.seeds(label):
            every |= {line["round"] for line in run.rounds}
            routed |= {
                line["round"]
                for line in run.rounds
                for client in line["clients"]
                if (client.get("diagnostics") or {}).get("router_probabilities")
            }
        measured = {aggregation.round for aggregation in read_aggregations(source.first_runs()[label])}
        if routed or measured:
            entries.append(
                {"method": label, "rounds": sorted(every), "router": sorted(routed), "neighbours": sorted(measured)}
            )
    return entries


def _json(value: Any) -> str:
    """Encode a value as JSON that is safe inside a script element."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _asset(name: str) -> str:
    return (files("pilot.report.html") / "assets" / name).read_text(encoding="utf-8")


def _template() -> Any:
    from jinja2 import BaseLoader, Environment, StrictUndefined

    # Everything is escaped, except what the template marks as safe: data, style and scripts.
    environment = Environment(loader=BaseLoader(), autoescape=True, undefined=StrictUndefined)
    return environment.from_string(_asset("report.html.j2"))


def _pairs(rows: Sequence[Sequence[str]], kind: str = "") -> Any:
    """Render an HTML table of names and values."""
    from markupsafe import Markup

    line = Markup('<tr><th scope="row">{}</th><td class="{}">{}</td></tr>')
    lines = [line.format(name, kind, value) for name, value in rows]
    return Markup('<table class="pairs"><tbody>{}</tbody></table>').format(Markup("").join(lines))


def _compact(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(item, sort_keys=True)}" for name, item in sorted(value.items())) or "-"


@cache
def _library() -> str:
    """Bundle Vega and Vega-Embed as one script that defines `vegaEmbed`."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace("</script", "<\\/script")
