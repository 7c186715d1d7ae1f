"""Figure `privacy`: what each attack on real rounds reaches, by method and profile."""

from collections.abc import Sequence

import numpy as np

from pilot.matplotlib_import import Figure, Normalize, matplotlib
from pilot.report.numbers.privacy import Audited, PrivacyRow, row_of, scaled
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import LIGHT, new_figure, title

_DARK_BEYOND = 0.6
_METRIC_CHANCE = {"answer accuracy": 1 / 6}
"""Closed answers have no stated chance; the colour counts from a guess among six."""


def draw(
    scenario: str, audits: Sequence[Audited], rows: Sequence[PrivacyRow], columns: Sequence[tuple[str, str, str]],
    page: Page = SCREEN,
) -> Figure:  # fmt: skip
    """Draw a heat map: audited methods by attacks, labelled by the values, coloured from guessing to certainty."""
    height = 0.28 * len(audits) + 1.6
    figure = new_figure(*page.inches((0.85 * len(columns) + 3.0, height), 0.2 * len(audits) + 1.3))
    axes = figure.subplots()
    values = np.full((len(audits), len(columns)), np.nan)
    for line, audit in enumerate(audits):
        for place, (_, attack, setting) in enumerate(columns):
            row = row_of(rows, audit, attack, setting)
            share = _share(row)
            values[line, place] = np.nan if share is None else max(0.0, share)
            text = "n/a" if row is None or row.value is None else f"{row.value:.2f}"
            colour = "white" if share is not None and share > _DARK_BEYOND else "black"
            axes.text(place, line, text, ha="center", va="center", fontsize=page.points(7), color=colour)
    colours = matplotlib.colormaps["Reds"].with_extremes(bad=LIGHT)
    image = axes.imshow(values, cmap=colours, norm=Normalize(0, 1, clip=True), aspect="auto")
    axes.set_yticks(range(len(audits)), [_name(audit, audits) for audit in audits])
    axes.set_xticks(
        range(len(columns)), [name for name, *_ in columns], rotation=35, ha="right", rotation_mode="anchor"
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=20, ticks=[0, 1])
    bar.ax.set_yticklabels(["guessing", "certain"])
    bar.outline.set_visible(False)
    title(
        figure,
        f"{scenario}: what attacks on messages reach (AUC, accuracy, or bits of exposure), mean over seeds. A low "
        "value proves nothing.",
        page,
    )
    return figure


def _share(row: PrivacyRow | None) -> float | None:
    if row is not None and row.value is not None and row.metric in _METRIC_CHANCE:
        chance = _METRIC_CHANCE[row.metric]
        return (row.value - chance) / (1 - chance)
    return scaled(row)


def _name(audit: Audited, audits: Sequence[Audited]) -> str:
    """Return the method's name, with epsilon if other rows of it have another."""
    same = [each for each in audits if each.method == audit.method]
    if len(same) == 1:
        return audit.method
    return f"{audit.method}, {'no noise' if audit.epsilon is None else f'epsilon {audit.epsilon:.2g}'}"
