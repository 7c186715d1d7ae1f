"""Figures of a scenario, for a screen (`figures/`) or a paper (`paper/`). Equal results give equal bytes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pilot.errors import UserError
from pilot.io.layout import existing_scenario_folder
from pilot.report.numbers.comparable import check_comparable
from pilot.report.numbers.load import Run, load_methods
from pilot.report.plots import (
    bars,
    conditions,
    cost,
    cross_task,
    curves,
    drift,
    heterogeneity,
    losses,
    mixture,
    samples,
)
from pilot.report.plots.page import PAPER, SCREEN
from pilot.report.plots.style import SkipFigure, Source, save, save_paper, style_context

if TYPE_CHECKING:
    from pilot.matplotlib_import import Figure
    from pilot.report.plots.page import Page

FIGURES: "Mapping[str, Callable[[Source, Page], Figure]]" = MappingProxyType(
    {
        "bars": bars.draw,
        "cost": cost.draw,
        "losses": losses.draw,
        "curves": curves.draw,
        "matrix": cross_task.draw,
        "heterogeneity": heterogeneity.draw,
        "router": mixture.draw_router,
        "distances": mixture.draw_distances,
        "drift": drift.draw,
        "conditions": conditions.draw,
        "samples": samples.draw,
    }
)


def write_figures(
    scenario_dir: Path,
    methods: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    paper: bool = False,
) -> list[Path]:
    """Draw the figures of a scenario into `scenario_dir/figures`, those for paper into `scenario_dir/paper`.

    A figure whose input is missing is skipped with a printed reason, and an older file of that name is removed, since
    it would not show the current results.

    Args:
        scenario_dir: `results/<profile>/<scenario>`.
        methods: the methods to show; all by default.
        only: names from `FIGURES`; all by default.
        paper: whether to draw, instead, `<name>-column.pdf` and `<name>-text.pdf`, as wide as a column and the text of
            a paper.

    Returns:
        The files written: PNG and PDF of each figure, or its two PDFs for paper.

    Raises:
        UserError: unknown figure or method, an unfinished run, or runs that cannot be compared.
    """
    names = list(FIGURES) if only is None else list(only)
    if unknown := [name for name in names if name not in FIGURES]:
        raise UserError(f"unknown figure {', '.join(unknown)}. Expected some of: {', '.join(FIGURES)}.")
    source = Source(scenario_dir, tuple(_select(scenario_dir, methods)))
    folder = scenario_dir / ("paper" if paper else "figures")
    written: list[Path] = []
    for name in names:
        try:
            if paper:
                written += save_paper(partial(FIGURES[name], source), folder, name)
                continue
            with style_context():
                written += save(FIGURES[name](source, SCREEN), folder, name)
        except SkipFigure as reason:
            print(f"figure {name} skipped: {reason}")
            endings = [f"-{page.name}.pdf" for page in PAPER] if paper else [".png", ".pdf"]
            for ending in endings:
                (folder / f"{name}{ending}").unlink(missing_ok=True)
    return written


def _select(scenario_dir: Path, methods: Sequence[str] | None) -> list[Run]:
    existing_scenario_folder(scenario_dir)
    runs = load_methods(scenario_dir, methods) if methods or (scenario_dir / "runs").is_dir() else []
    check_comparable(runs, allow=["seeds"])  # seeds may differ: the figures show each of them
    return runs
