"""Tidy rows of the page's charts as compact CSV text. Equal results give equal bytes."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pilot.io.sealed import read_sealed
from pilot.report.html.leaderboard import costs
from pilot.report.numbers.summary import group_runs
from pilot.report.plots.cross_task import cross_task_means
from pilot.report.plots.mixture import read_aggregations
from pilot.report.plots.style import Source
from pilot.report.tables.render import rows_to_csv

LOSS_NAMES = {
    **{"cross_entropy": "cross-entropy", "total": "total loss", "difference": "difference loss L_d"},
    **{"load_balance": "load balance L_b", "router_z": "router z-loss L_z"},
}


def quality_rows(source: Source) -> str:
    """Return each method's primary metric on each task with the method's cost: one row per method and task."""
    known = {group.label: costs(group) for group in group_runs(source.runs)}
    rows = []
    for task in source.tasks:
        for label, row in source.primary(task).iterrows():
            reference = int(source.is_reference(str(label)))
            start = {"method": label, "task": task.name, "metric": task.metric, "reference": reference}
            ends = {name: _number(row[name]) for name in ("mean", "ci_low", "ci_high")}
            rows.append(start | ends | known[str(label)])
    values = ["mean", "ci_low", "ci_high", "megabytes", "parameters", "teraflops", "seconds"]
    return _csv(["method", "task", "metric", "reference", *values], rows)


def curve_rows(source: Source) -> str:
    """Return the personalised models' primary metric after every evaluated round.

    `untrained` and `silent` mark methods that are not trained, or send nothing; `last` marks a method's last round.
    """
    table = source.curves
    table = table[(table.protocol == "personalised") & table["mean"].notna()]
    rows = []
    for task in source.tasks:
        for label in source.methods:
            own = table[(table.task == task.name) & (table.method == label)].sort_values("round")
            for _, row in own.iterrows():
                kind = {"untrained": int(own["round"].max() == 0), "silent": int(own.bytes.max() == 0)}
                spent = {"round": row["round"], "megabytes": row.bytes / 1e6, "steps": row.steps}
                spent |= {"time": _number(row.time)} if source.timed else {}
                ends = {name: _number(row[name]) for name in ("mean", "ci_low", "ci_high")}
                last = int(row["round"] == own["round"].max())
                rows.append({"method": label, "task": task.name} | spent | ends | kind | {"last": last})
    columns = ["method", "task", "round", "megabytes", "steps", *(["time"] if source.timed else [])]
    return _csv([*columns, "mean", "ci_low", "ci_high", "untrained", "silent", "last"], rows)


def cross_task_rows(source: Source) -> str:
    """Return the mean value of each task's clients on every task; `norm` as in `client_rows`, by the task asked."""
    rows = []
    tables = {label: cross_task_means(source, label) for label in source.methods}
    for across, asked in enumerate(source.tasks):
        known = [values[own][across] for values in tables.values() for own in range(len(source.tasks))]
        known = [value for value in known if value == value]
        low, high = (min(known), max(known)) if known else (0.0, 0.0)
        for label, values in tables.items():
            for down, own in enumerate(source.tasks):
                if (value := values[down][across]) == value:
                    place = (value - low) / (high - low) if high > low else 0.5
                    cell = cross_task_name(own.name, asked.name)
                    row = {"method": label, "cell": cell, "models": own.name, "asked": asked.name, "value": value}
                    rows.append(row | {"norm": place, "own": int(own == asked)})
    return _csv(["method", "cell", "models", "asked", "value", "norm", "own"], rows)


def cross_task_name(own: str, asked: str) -> str:
    """Return the name of a column: whose models are asked about what."""
    return f"{own} asked {asked}"


def client_rows(source: Source) -> str:
    """Return each client's primary metric, mean over seeds; `norm` maps a task's lowest to 0, its highest to 1."""
    table = source.per_client
    rows = []
    for task in source.tasks:
        chosen = table[(table.task == task.name) & (table.metric == task.metric) & (table.protocol == "personalised")]
        means = chosen[chosen.value.notna()].groupby(["method", "client"]).value.mean()
        low, high = (float(means.min()), float(means.max())) if len(means) else (0.0, 0.0)
        for label in source.methods:
            if label not in means.index.get_level_values("method"):
                continue
            own = means[label]
            worst = int(own.idxmin())
            for client, value in own.items():
                place = (value - low) / (high - low) if high > low else 0.5
                name = f"{task.name} {client}"
                row = {"method": label, "task": task.name, "client": name, "value": value, "norm": place}
                rows.append(row | {"worst": int(client == worst and own.nunique() > 1)})
    return _csv(["method", "task", "client", "value", "norm", "worst"], rows)


def loss_rows(source: Source) -> str:
    """Return the losses per method, task, round and phase: mean over steps, clients and seeds, and the client range.

    `place` is the end of the phase on an axis of rounds, where the phases of a round have equal lengths.
    """
    found: dict[tuple[str, str, int, str, str], list[float]] = defaultdict(list)
    places: dict[tuple[str, int, str], float] = {}
    for run in source.runs:
        for line, place in _with_places(run.rounds):
            places[run.label, line["round"], line["phase"]] = place
            for client in line["clients"]:
                for name, steps in (client.get("losses") or {}).items():
                    values = [step for step in steps if step is not None]
                    if values:
                        key = (run.label, client.get("task", ""), line["round"], line["phase"], name)
                        found[key].append(float(np.mean(values)))
    rows = [
        {
            **{"method": label, "task": task or "all tasks", "round": number, "phase": phase},
            **{"loss": LOSS_NAMES.get(name, name), "place": places[label, number, phase]},
            **{"mean": float(np.mean(values)), "low": min(values), "high": max(values)},
        }
        for (label, task, number, phase, name), values in found.items()
    ]
    return _csv(["method", "task", "round", "phase", "loss", "place", "mean", "low", "high"], rows)


def router_rows(source: Source) -> str:
    """Return the mean weight of each task's adapter in each client's router, by method and round, mean over seeds."""
    found: dict[tuple[str, int, int], list[list[float]]] = defaultdict(list)
    for run in source.runs:
        for line in run.rounds:
            for client in line["clients"]:
                weights = (client.get("diagnostics") or {}).get("router_probabilities")
                if weights:
                    found[run.label, line["round"], client["client"]].append(weights)
    owner, names = _owners(source), [task.name for task in source.tasks]
    rows = []
    for (label, number, client), weights in found.items():
        for expert, value in zip(names, np.mean(weights, axis=0), strict=False):
            own = int(expert == owner.get(client))
            row = {"method": label, "round": number, "client": _name(owner, client), "expert": expert}
            rows.append(row | {"weight": float(value), "own": own})
    return _csv(["method", "round", "client", "expert", "weight", "own"], rows)


def neighbour_rows(source: Source) -> str:
    """Return the distances between text adapters at each round's last aggregation, lowest seed.

    `weight` is the aggregation weight of a chosen neighbour.
    """
    owner, rows = _owners(source), []
    for label, run in source.first_runs().items():
        last = {aggregation.round: aggregation for aggregation in read_aggregations(run)}
        weights = {line["round"]: (line.get("aggregation") or {}).get("weights") or {} for line in run.rounds}
        for number, aggregation in last.items():
            for one, other in np.argwhere(~np.isnan(aggregation.distances)):
                chosen = aggregation.neighbours.get(int(one), [])
                given = weights[number].get(str(one), [])
                at = chosen.index(other) if other in chosen else None
                share = given[at] if at is not None and at < len(given) else None
                row = {"method": label, "round": number, "client": _name(owner, one), "other": _name(owner, other)}
                distance = None if one == other else float(aggregation.distances[one, other])
                rows.append(row | {"distance": distance, "chosen": int(at is not None), "weight": share})
    return _csv(["method", "round", "client", "other", "distance", "chosen", "weight"], rows)


def partition_rows(source: Source) -> tuple[str, str]:
    """Return the examples by client and label, and the Jensen-Shannon distances between clients.

    Without a partition, both texts have only a header.
    """
    path = source.scenario_dir / "partition" / "heterogeneity.json"
    report = read_sealed(path) if path.exists() else {"clients": [], "label_distribution": {}, "js_distance": []}
    owner = {client["client"]: client["task"] for client in report["clients"]}
    labels, distances = [], []
    for task, table in report["label_distribution"].items():
        clients = [client for client, name in owner.items() if name == task]
        for client, counts in zip(clients, table["counts"], strict=True):
            for label, count in zip(table["labels"], counts, strict=True):
                labels.append({"task": task, "client": _name(owner, client), "label": label, "count": count})
    ids = sorted(owner)
    for one, row in zip(ids, report["js_distance"], strict=True):
        for other, value in zip(ids, row, strict=True):
            distances.append({"client": _name(owner, one), "other": _name(owner, other), "distance": value})
    return (
        _csv(["task", "client", "label", "count"], labels),
        _csv(["client", "other", "distance"], distances),
    )


def values_of(text: str, column: str) -> list[str]:
    """Return the distinct values of a column of one of these texts, in order of appearance."""
    return list(dict.fromkeys(row[column] for row in csv.DictReader(io.StringIO(text))))


def rounds_of(text: str) -> list[int]:
    """Return the distinct rounds of one of these texts, sorted."""
    return sorted(map(int, values_of(text, "round")))


def _with_places(lines: Sequence[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], float]]:
    phases: dict[int, list[str]] = defaultdict(list)
    for line in lines:
        if line["phase"] not in phases[line["round"]]:
            phases[line["round"]].append(line["phase"])
    for line in lines:
        own = phases[line["round"]]
        yield line, line["round"] - 1 + (own.index(line["phase"]) + 1) / len(own)


def _owners(source: Source) -> dict[int, str]:
    return {client: task.name for task in source.tasks for client in task.clients}


def _name(owner: dict[int, str], client: int) -> str:
    return f"{owner.get(int(client), 'client')} {client}"


def _number(value: float) -> float | None:
    return None if value != value else float(value)


def _csv(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    short = [
        {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
    ]
    return rows_to_csv(columns, short)
