"""`pilot-bench power`: how many seeds a difference needs, as a table or a data format."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.errors import UserError
from pilot.report.compare.side_by_side import check_format
from pilot.report.compare.wide import Wide, formatted
from pilot.report.numbers.comparable import check_comparable
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.power import PowerRow, power_rows
from pilot.report.numbers.retraining import MAX_SEEDS, POWER
from pilot.report.numbers.significance import DEFAULT_BASELINE
from pilot.report.numbers.summary import group_runs
from pilot.report.tables.render import column_names

if TYPE_CHECKING:
    from rich.console import Console

TITLE = "Seeds that a difference needs"
TITLES = [
    *("scenario", "task", "method", "difference", "sd of training", "sd of images", "seeds", "power"),
    *("seeds needed", "with Holm's correction"),
]


def show_power(
    paths: Sequence[Path | str],
    differences: Sequence[str],
    baseline: str = DEFAULT_BASELINE,
    format: str = "table",
    allow_different: Collection[str] = (),
    console: "Console | None" = None,
) -> str | None:
    """Say how many seeds differences to `baseline` need, from the variation in the runs under `paths`.

    Args:
        paths: scenario, method or run folders.
        differences: `VALUE` for all tasks or `TASK=VALUE`, in the metric's unit.
        baseline, format, allow_different, console: as for `side_by_side.compare`, as is the result.

    Raises:
        UserError: as `side_by_side.compare`, a value that is no positive number, or too few seeds.
    """
    check_format(format)
    wanted = {task: value for task, value in map(_parse, differences)}
    runs = load_runs(paths)
    check_comparable(runs, allow_different)
    rows = power_rows(group_runs(runs), wanted, baseline)
    return formatted(TITLE, _wide(rows), column_names(PowerRow), rows, format, console)


def _parse(text: str) -> tuple[str | None, float]:
    task, _, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise UserError(f"--difference {text}: expected a positive number, or TASK=NUMBER, such as 0.05.")
    return task or None, number


def _wide(rows: Sequence[PowerRow]) -> Wide:
    lines = [
        [
            *(row.scenario, f"{row.task} {row.metric}", row.method, f"{row.difference:g}"),
            *(f"{row.std_training:.4f}", f"{row.std_images:.4f}", str(row.measured_seeds), f"{row.power:.2f}"),
            *(_seeds(row.seeds), _seeds(row.seeds_corrected)),
        ]
        for row in rows
    ]
    notes = [
        f"Difference to {rows[0].baseline}, paired by seed. sd of training: of the difference from one training to the "
        "next; sd of images: what other test images would change in every training alike. Both are estimates; from "
        "three seeds, rough ones: read the mean of all.",
        f"power: share of cases in which the seeds at hand find a true difference of that size (p < 0.05). seeds "
        f"needed: for {POWER:.0%} of cases; never: the test images are too few for it, whatever the seeds (up to "
        f"{MAX_SEEDS}).",
    ]
    return Wide(TITLES, lines, 3, notes)


def _seeds(number: int | None) -> str:
    return "never" if number is None else str(number)
