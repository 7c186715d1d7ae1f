"""`pilot-bench compare --show`: tables of protocols beyond the headline.

CSV and JSON hold the rows of `tables/<name>.csv`; for readers, tasks or quantities are columns.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilot.errors import UserError
from pilot.report.compare.side_by_side import check_format
from pilot.report.compare.wide import Wide, formatted
from pilot.report.numbers.comparable import check_comparable
from pilot.report.numbers.conditions import ConditionRow
from pilot.report.numbers.cross_task import QUANTITIES, FairnessRow, MatrixRow
from pilot.report.numbers.curves import NO_TARGET, REACHED, CurveRow, TargetRow
from pilot.report.numbers.forgetting import ForgettingRow
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.statistics import LEVEL
from pilot.report.numbers.summary import group_runs
from pilot.report.numbers.unseen import UnseenRow
from pilot.report.tables.protocols import PROTOCOL_TABLES, protocol_tables
from pilot.report.tables.render import amount

if TYPE_CHECKING:
    from rich.console import Console

_FORM = ".3f"


def show_protocol(
    paths: Sequence[Path | str],
    name: str,
    format: str = "table",
    allow_different: Collection[str] = (),
    console: "Console | None" = None,
) -> str | None:
    """Compare the runs under `paths` by one of `PROTOCOL_TABLES`; other arguments and result as for `compare`.

    Raises:
        UserError: as `compare`, or no run was trained here.
    """
    check_format(format)
    runs = load_runs(paths)
    check_comparable(runs, allow_different)
    columns, rows = protocol_tables(group_runs(runs), name)[name]
    if not rows:
        raise UserError(f"--show {name}: {_NEEDS[name]}, found none.")
    return formatted(PROTOCOL_TABLES[name], _WIDE[name](rows), columns, rows, format, console)


def _curves(rows: Sequence[CurveRow]) -> Wide:
    chosen = [row for row in rows if row.protocol == "personalised"]
    timed = any(row.time is not None for row in chosen)
    tasks = {(row.task, row.metric): f"{row.task} {row.metric}" for row in chosen}
    lines: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for row in chosen:
        fixed = (
            row.scenario,
            row.method,
            str(row.round),
            f"{row.bytes / 1e6:.2f}",
            f"{row.steps:,}",
            *_times(row, timed),
        )
        lines[fixed][tasks[row.task, row.metric]] = _with_interval(row.mean, row.ci_low, row.ci_high)
    titles = ["scenario", "method", "round", "MB", "steps", *(["time"] if timed else [])]
    wide = _lines(titles, list(tasks.values()), lines)
    notes = ["Personalised models; mean over clients and seeds, 95 % interval. MB and steps: sums over all clients."]
    return Wide(*wide, 2, notes)


def _targets(rows: Sequence[TargetRow]) -> Wide:
    timed, lines = any(row.time is not None for row in rows), []
    spent = ["round", "MB", "steps", *(["time"] if timed else [])]
    titles = ["scenario", "task", "method", "target", *spent, "seeds", "area"]
    for row in rows:
        reached = [row.status, "-", "-"] if row.status != REACHED else [str(row.round), "", f"{row.steps:,}"]
        reached[1] = "-" if row.bytes is None else f"{row.bytes / 1e6:.2f}"
        seeds = "-" if row.seeds_reached is None else f"{row.seeds_reached} of {row.num_seeds}"
        start = [row.scenario, f"{row.task} {row.metric}", row.method, amount(row.target, _FORM)]
        lines.append([*start, *reached, *_times(row, timed), seeds, amount(row.area, _FORM)])
    notes = [
        f"{', '.join(spent)}: at the first evaluated round whose mean over seeds is at least the target. seeds: how "
        "many reach it alone. area: mean height of the curve over rounds."
    ]
    if any(row.status == NO_TARGET for row in rows):
        notes.append("The scenario's field `targets` names no target for some tasks.")
    return Wide(titles, lines, 3, notes)


def _times(row: CurveRow | TargetRow, timed: bool) -> tuple[str, ...]:
    """Return the cell of a virtual clock's time, if any row has one."""
    return () if not timed else ("-" if row.time is None else f"{row.time:.1f}",)


def _matrix(rows: Sequence[MatrixRow]) -> Wide:
    tasks = {(row.task, row.metric): f"{row.task} {row.metric}" for row in rows}
    lines: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for row in rows:
        text = _with_interval(row.mean, row.ci_low, row.ci_high)
        own = " (own)" if row.client_task == row.task else ""
        lines[row.scenario, row.method, f"{row.client_task} {row.client}".strip()][tasks[row.task, row.metric]] = (
            text + own
        )
    wide = _lines(["scenario", "method", "model of client"], list(tasks.values()), lines)
    return Wide(*wide, 3, ["all: one model for all clients. -: not evaluated (field `cross_task` of the scenario)."])


def _fairness(rows: Sequence[FairnessRow]) -> Wide:
    lines: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for row in rows:
        lines[row.scenario, row.method][row.quantity] = _with_interval(row.mean, row.ci_low, row.ci_high)
    wide = _lines(["scenario", "method"], list(QUANTITIES), lines)
    notes = ["0: the backbone as shipped; 1: training on pooled data. Clients on their own task, except for others."]
    missing = dict.fromkeys(f"{row.method}, {row.quantity}: {row.status}" for row in rows if row.mean is None)
    return Wide(*wide, 2, [*notes, *(f"{text}." for text in missing)])


def _unseen(rows: Sequence[UnseenRow]) -> Wide:
    tasks = {(row.task, row.metric): f"{row.task} {row.metric}" for row in rows}
    lines: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for row in rows:
        text = _with_interval(row.mean, row.ci_low, row.ci_high) + f" ({amount(row.difference, '+.3f')})"
        lines[row.scenario, row.unseen, row.protocol, row.method][tasks[row.task, row.metric]] = text
    wide = _lines(["scenario", "unseen", "protocol", "method"], list(tasks.values()), lines)
    return Wide(*wide, 4, ["In brackets after the interval: minus the value of clients, or questions, that took part."])


def _conditions(rows: Sequence[ConditionRow]) -> Wide:
    tasks = {(row.task, row.metric): f"{row.task} {row.metric}" for row in rows}
    lines: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for row in rows:
        mark = "" if row.p_holm is None or row.p_holm >= LEVEL else "*"
        text = _with_interval(row.mean, row.ci_low, row.ci_high) + mark
        text += "" if row.difference is None else f" ({row.difference:+.3f})"
        lines[row.scenario, row.seen, row.method][tasks[row.task, row.metric]] = text
    wide = _lines(["scenario", "conditions", "method"], list(tasks.values()), lines)
    notes = [
        "The same test images under the conditions of the model's own client, of the task's other clients (mean), and "
        "as they are. In brackets after the interval: minus clean. *: differs from fedavg after training again (Holm's "
        "correction over own and others)."
    ]
    return Wide(*wide, 3, notes)


def _forgetting(rows: Sequence[ForgettingRow]) -> Wide:
    tasks = {(row.task, row.metric): f"{row.task} {row.metric}" for row in rows}
    lines: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for row in rows:
        text = _with_interval(row.mean, row.ci_low, row.ci_high) + f" ({amount(row.difference, '+.3f')})"
        lines[row.scenario, row.method][tasks[row.task, row.metric]] = text
    wide = _lines(["scenario", "method"], list(tasks.values()), lines)
    return Wide(*wide, 2, ["Mean over all clients and seeds; in brackets after the interval: minus untuned."])


def _lines(
    fixed: list[str], columns: list[str], cells: dict[tuple[str, ...], dict[str, str]]
) -> tuple[list[str], list[list[str]]]:
    return [*fixed, *columns], [[*key, *(found.get(name, "-") for name in columns)] for key, found in cells.items()]


def _with_interval(mean: float | None, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f" [{low:{_FORM}}, {high:{_FORM}}]"
    return amount(mean, _FORM) + ends


_WIDE: dict[str, Any] = {
    "curves": _curves, "targets": _targets, "matrix": _matrix, "fairness": _fairness, "unseen": _unseen,
    "conditions": _conditions, "forgetting": _forgetting,
}  # fmt: skip
_TRAINED = "expected runs that were trained here, not only references or imported answers"
_NEEDS = dict.fromkeys(PROTOCOL_TABLES, _TRAINED)
_NEEDS["unseen"] = "expected runs of a scenario with the field `unseen`"
_NEEDS["conditions"] = "expected runs of a scenario with the field `conditions`"
_NEEDS["forgetting"] = "expected runs of a profile with the field `forgetting`"
