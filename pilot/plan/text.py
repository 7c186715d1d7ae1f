"""Plans as text tables. Sizes are decimal: 1 GB is 10^9 bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

_PARTS = (
    "weights", "masters", "optimiser", "copies", "features", "gradients", "activations", "working", "logits",
    "stepping",
)  # fmt: skip


def as_text(plan: Mapping[str, Any]) -> str:
    """Format memory, work and advice for every method, and the assumptions."""
    methods: Mapping[str, Mapping[str, Any]] = plan["methods"]
    device = plan["assumptions"]["device"]
    lines = [
        f"{plan['scenario']} with profile {plan['profile']}: {plan['parameters'] / 1e6:.1f} million parameters",
        "",
        f"Memory of one client's training in GB (one {device} has {_gb(plan['memory'])})",
        *_table(["method", "phase", *_PARTS, "peak", f"on {device}"], list(_memory_rows(methods))),
        "",
        "Work and disk of one run",
        *_table(
            [
                "method",
                "steps",
                "hours",
                "measured",
                "down 1",
                "up 1",
                "down",
                "up",
                "all GB",
                "server GB",
                "clients GB",
            ],
            [_work_row(name, method) for name, method in methods.items()],
        ),
        "(down, up: MB per client in round 1, then in each later round; hours from operations, measured from earlier"
        " runs' timing.json; all GB: exchanged by all clients in all rounds; server, clients: checkpoints on disk)",
        "",
        _features(plan),
        "",
        *_verdicts(plan),
        "",
        f"Assumed: {', '.join(f'{name} {value}' for name, value in plan['assumptions'].items())}.",
    ]
    return "\n".join(lines)


def _memory_rows(methods: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    rows = []
    for name, method in methods.items():
        for phase, memory in method["memory"].items():
            parts = [_gb(memory[part]) for part in _PARTS]
            rows.append([name, phase, *parts, _gb(memory["peak"]), _gb(memory["device"])])
    return rows


def _work_row(name: str, method: Mapping[str, Any]) -> list[str]:
    work = method["work"]
    bound = "<=" if method["bytes_are_upper_bounds"] else ""
    measured = method["measured_hours"]
    bytes_ = [f"{bound}{work[way][number] / 1e6:.2f}" for number in (0, 1) for way in ("down", "up")]
    return [
        name, str(work["steps"]), f"{method['hours']:.2f}", "-" if measured is None else f"{measured:.2f}",
        *bytes_, bound + _gb(work["total_bytes"]),
        _gb(work["server_disk"]), _gb(work["client_disk"]),
    ]  # fmt: skip


def _features(plan: Mapping[str, Any]) -> str:
    features = plan["features"]
    return (
        f"Vision features: at most {features['images']} images of {features['bytes_per_image'] / 1e6:.3f} MB, "
        f"{_gb(features['bytes'])} GB on disk, computed once."
    )


def _verdicts(plan: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, method in plan["methods"].items():
        if method["fits"]:
            lines.append(f"{name}: fits, {_gb(method['device_bytes'])} of {_gb(plan['memory'])} GB.")
            continue
        needed = f"{_gb(method['device_bytes'])} of {_gb(plan['memory'])} GB"
        lines.append(f"{name}: DOES NOT FIT, {needed}. Change the profile:")
        for change in method["changes"]:
            lines.append(f"  {change['change']}  ->  {_gb(change['device_bytes'])} GB")
        if not method["changes"] or not method["changes"][-1]["fits"]:
            lines.append("  This still does not fit: use more memory, a smaller backbone or a lower LoRA rank.")
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if column < 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [head, *rows]
    ]


def _gb(value: int) -> str:
    return f"{value / 1e9:.2f}"
