"""The report of `bench rivals` as text: a table per number of clients, then where this suite is behind."""

from collections.abc import Iterator, Mapping
from typing import Any

from pilot.bench.rivals.agreement import TOLERANCE
from pilot.bench.rivals.sides import OURS, PLAIN

COMPARED = {"startup_seconds": "start-up", "round_seconds": "a round", "round_cpu_seconds": "CPU of a round"}
"""Measurements in which being behind is reported."""
MEBIBYTE = 1 << 20


def as_text(report: Mapping[str, Any]) -> str:
    """Format the report: medians over the repeats."""
    settings = report["settings"]
    lines = [
        f"{report['scenario']}, profile {report['profile']}: FedAvg, {settings['rounds']} rounds, "
        f"{settings['repeats']} repeats in turn, medians; seconds (CPU: all processes)"
    ]
    for row in report["sizes"]:
        lines += ["", f"{row['clients']} clients, {row['sampled']} in a round", *_table(row, report["versions"])]
        lines += [f"{name}: {reason}" for name, reason in row["failed"].items()]
    lines += ["", *(behind(report) or ["pilot-bench is ahead of every simulator in all of these numbers"])]
    lines += [f"{name}: skipped, {reason}" for name, reason in report["skipped"].items()]
    return "\n".join([*lines, "", "machine: " + ", ".join(f"{k} {v}" for k, v in report["machine"].items())])


def _table(row: Mapping[str, Any], versions: Mapping[str, str]) -> Iterator[str]:
    names = ("start-up", "CPU", "round", "beside steps", "CPU", "beside training", "MiB", "load")
    yield f"{'':<20}" + "".join(f"{name:>16}" for name in names) + f"{'agreement':>30}"
    for name, side in row["sides"].items():
        values = (
            side["startup_seconds"], side["startup_cpu_seconds"], side["round_seconds"], side["overhead_seconds"],
            side["round_cpu_seconds"], side["overhead_cpu_seconds"],
        )  # fmt: skip
        agreement = side["agreement"]
        same = max(agreement["round_1"], agreement["replayed"]) <= TOLERANCE
        states = f"{agreement['round_1']:.0e} {agreement['replayed']:.0e} ({agreement['round_2']:.0e})"
        yield (
            f"{name + ' ' + versions[name]:<20}"
            + "".join(f"{value:>16.2f}" for value in values)
            + f"{side['peak_bytes'] / MEBIBYTE:>16.0f}{side['load']:>16.1f}{states if same else 'NO: ' + states:>30}"
        )


def behind(report: Mapping[str, Any]) -> list[str]:
    """Return a line for every number in which a simulator is ahead of this suite."""
    lines = []
    for row in report["sizes"]:
        ours = row["sides"][OURS]
        for name, side in row["sides"].items():
            lines += [
                f"BEHIND {name} at {row['clients']} clients: {title} takes {ours[key]:.2f} s, there {side[key]:.2f} s"
                for key, title in COMPARED.items()
                if name not in (OURS, PLAIN) and side[key] < ours[key]
            ]
    return lines
