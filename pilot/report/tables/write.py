"""Files of a scenario's `tables/`. Equal results give equal bytes, except in `timing.csv`."""

from collections.abc import Collection, Sequence
from pathlib import Path

from pilot.io.atomic import write_text
from pilot.report.numbers.comparable import check_comparable
from pilot.report.numbers.cost import CostRow, TimingRow, cost_rows, timing_rows
from pilot.report.numbers.headline import build_headlines
from pilot.report.numbers.load import load_methods
from pilot.report.numbers.significance import SignificanceRow, against_baseline
from pilot.report.numbers.summary import ClientRow, MainRow, client_rows, group_runs, main_rows
from pilot.report.tables.paper import paper_tables
from pilot.report.tables.protocols import protocol_tables
from pilot.report.tables.render import column_names, latex, markdown, to_csv, to_json


def write_tables(
    scenario_dir: Path,
    baseline: str = "fedavg",
    allow_different: Collection[str] = (),
    methods: Sequence[str] | None = None,
) -> None:
    """Write a scenario's tables as CSV, Markdown, LaTeX and JSON.

    The CSV files are `main`, `per_client`, `cost`, `timing`, `significance`, and those of `PROTOCOL_TABLES`; the grid
    is in `main.md`, `main.tex` and `leaderboard.json`. `grid.tex`, `significance.tex` and `cost.tex` are tables for a
    paper that need no scaling.

    Args:
        scenario_dir: `results/<profile>/<scenario>`.
        baseline: the method that the others are tested against.
        allow_different: properties in which the runs may differ (`comparable.DIFFERENCES`); `main.md` and `main.tex`
            note them.
        methods: the methods to show, including references; by default all that have runs.

    Raises:
        UserError: no runs, an unfinished run, runs that cannot be compared, or an unknown baseline.
    """
    runs = load_methods(scenario_dir, methods)
    allowed = check_comparable(runs, allow_different)
    groups = group_runs(runs)
    grids = build_headlines(groups, baseline, allowed)
    texts = {
        "main.csv": to_csv(main_rows(groups), column_names(MainRow)),
        "per_client.csv": to_csv(client_rows(groups), column_names(ClientRow)),
        "cost.csv": to_csv(cost_rows(groups), column_names(CostRow)),
        "timing.csv": to_csv(timing_rows(groups), column_names(TimingRow)),
        "significance.csv": to_csv(against_baseline(groups, baseline), column_names(SignificanceRow)),
        **{f"{name}.csv": to_csv(rows, columns) for name, (columns, rows) in protocol_tables(groups).items()},
        "main.md": "\n".join(markdown(grid) for grid in grids),
        "main.tex": "\n".join(latex(grid) for grid in grids),
        **paper_tables(grids, groups),
        "leaderboard.json": to_json(grids, timing=False),
    }
    for name, text in texts.items():
        write_text(scenario_dir / "tables" / name, text)
