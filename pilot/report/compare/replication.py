"""`pilot-bench replication`: what share of one set of seeds' marks another set confirms."""

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.errors import UserError
from pilot.report.compare.side_by_side import check_format
from pilot.report.compare.wide import Wide, formatted
from pilot.report.numbers.comparable import check_comparable
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.replication import FAMILIES, ReplicationRow, replication_rows
from pilot.report.numbers.significance import DEFAULT_BASELINE, TESTS
from pilot.report.numbers.summary import group_runs
from pilot.report.tables.render import column_names

if TYPE_CHECKING:
    from rich.console import Console

TITLES = ["scenario", "test", "compared", "comparisons", "marks", "same sign", "same sign, inside", "share"]


def show_replication(
    paths: Sequence[Path | str],
    num_seeds: int,
    baseline: str = DEFAULT_BASELINE,
    format: str = "table",
    allow_different: Collection[str] = (),
    console: "Console | None" = None,
) -> str | None:
    """Say how many marks of the first `num_seeds` seeds the next ones confirm, among the runs under `paths`.

    Other arguments and the result are as for `side_by_side.compare`; CSV and JSON hold every comparison.

    Raises:
        UserError: as `side_by_side.compare`, or too few seeds.
    """
    check_format(format)
    runs = load_runs(paths)
    check_comparable(runs, allow_different)
    rows = replication_rows(group_runs(runs), num_seeds, baseline)
    if not rows:
        raise UserError("replication: expected at least two methods with scores by example, found fewer.")
    title = f"Marks of {num_seeds} seeds, looked up in {num_seeds} others"
    return formatted(title, _wide(rows), column_names(ReplicationRow), rows, format, console)


def _wide(rows: Sequence[ReplicationRow]) -> Wide:
    lines = []
    for scenario, test, family in itertools.product(dict.fromkeys(row.scenario for row in rows), TESTS, FAMILIES):
        own = [row for row in rows if (row.scenario, row.test, row.compared) == (scenario, test, family)]
        marked = [row for row in own if row.marked]
        same, confirmed = sum(row.same_sign for row in marked), sum(row.confirmed for row in marked)
        share = f"{confirmed / len(marked):.3f}" if marked else "-"
        lines.append([scenario, test, family, *map(str, (len(own), len(marked), same, confirmed)), share])
    notes = [
        "marks: p < 0.05 in the first set, with Holm's correction over the comparisons of the line. same sign: the "
        "second set's difference has the same sign. inside: it is in the first set's 95 % interval, too. share: of the "
        "marks that are confirmed in both ways.",
        "training: would the difference be there after training again? these-models: do these trained models differ?",
    ]
    return Wide(TITLES, lines, 3, notes)
