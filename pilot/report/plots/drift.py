"""Figure `drift`: distance of aggregated LoRA products from the clients' mean product, by method and round."""

import math

import numpy as np

from pilot.matplotlib_import import Figure
from pilot.report.numbers.load import Run
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import DARK, SkipFigure, Source, new_figure, title

CAPTION = (
    "Aggregation drift ‖mean(BA) − X‖ / ‖mean(BA)‖ over the updates of all clients, by method and round, mean over "
    "seeds. X is what the server made where it is meant to be the mean product, and mean(B) mean(A) elsewhere, also "
    "for methods that do not average over all clients. Methods without such a value have no row."
)
_DARK_CELL = 0.6  # share of the colour scale above which numbers are white
_BESIDE, _NUMBER, _TICK = 1.9, 0.27, 0.3
"""Inches on paper: names and colour bar beside the map; smallest width of a cell with a number; a tick label."""


def draw(source: Source, page: Page = SCREEN) -> Figure:
    """Draw a cell per method and round: `drift` of `rounds.jsonl` (defined in `pilot.federation.drift`).

    A value is the mean over seeds; in rounds of several phases, it is that of the last phase that has one. Methods
    without a value have no row.
    """
    found = {label: by_round(source.seeds(label)) for label in source.methods}
    shown = {label: values for label, values in found.items() if np.isfinite(values).any()}
    if not shown:
        raise SkipFigure("no run of the chosen methods sent LoRA pairs")
    num_rounds = max(len(values) for values in shown.values())
    matrix = np.full((len(shown), num_rounds), np.nan)
    for row, values in enumerate(shown.values()):
        matrix[row, : len(values)] = values
    width, height = page.inches((0.42 * num_rounds + 2.6, 0.24 * len(shown) + 1.35), 0.16 * len(shown) + 0.6)
    figure = new_figure(width, height)
    numbers = not page.paper or (width - _BESIDE) / num_rounds > _NUMBER
    axes = figure.subplots()
    top = float(np.nanmax(matrix)) or 1.0
    image = axes.imshow(matrix, cmap="cividis_r", vmin=0, vmax=top, aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value) and numbers:
            colour = "white" if value > _DARK_CELL * top else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=page.points(6.5), color=colour)
    spacing = math.ceil(_TICK * num_rounds / width) if page.paper else 1
    axes.set_xticks(range(0, num_rounds, spacing), [str(number + 1) for number in range(0, num_rounds, spacing)])
    axes.set_yticks(range(len(shown)), list(shown))
    axes.tick_params(length=0)
    axes.set_xlabel("round")
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.outline.set_edgecolor(DARK)  # type: ignore[operator]
    title(
        figure,
        f"{source.scenario}: aggregation drift ‖mean(BA) − X‖ / ‖mean(BA)‖, X as aggregated, mean over seeds.",
        page,
    )
    return figure


def by_round(runs: list[Run]) -> np.ndarray:
    """Average the drift over seeds, shape (R,) by round; NaN if no seed has a value."""
    rows = [_of_run(run) for run in runs]
    length = max((len(row) for row in rows), default=0)
    padded = np.array([[*row, *[np.nan] * (length - len(row))] for row in rows]).reshape(len(rows), length)
    known = np.isfinite(padded)
    counts = known.sum(axis=0)
    means: np.ndarray = np.where(known, padded, 0.0).sum(axis=0) / np.where(counts, counts, np.nan)
    return means


def _of_run(run: Run) -> list[float]:
    found: dict[int, float] = {}
    for line in run.rounds:
        found[line["round"]] = line.get("drift", found.get(line["round"], np.nan))
    return [found[number] for number in sorted(found)]
