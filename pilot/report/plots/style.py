"""Shared parts of all figures: colours, the data that they read, and writing of reproducible files.

Colours of tasks, core methods and references are Okabe & Ito's (2008), which people with colour vision deficiencies can
tell apart; each other family of methods has one colour. A method has the same
colour, marker and hatch in every figure, whichever other methods are shown.
"""

import io
import math
import textwrap
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas

from pilot.config.variant import base_name
from pilot.io.atomic import write_bytes
from pilot.matplotlib_import import Axes, Figure, matplotlib
from pilot.methods.catalogue import FAMILIES
from pilot.report.numbers.load import Run, Task
from pilot.report.numbers.order import is_reference, sort_methods
from pilot.report.plots.page import PAPER, SCREEN, Page

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442")
GREY, DARK, LIGHT = "#999999", "#333333", "#DDDDDD"
MARKERS = ("p", "h", "<", ">", "*", "X", "P")
_CHARACTERS_PER_INCH = 15.0
_LEGEND_ROW = 0.135

_RC: dict[Any, Any] = {
    **{"font.family": "DejaVu Sans", "font.size": 8.0, "axes.titlesize": 9.0, "axes.labelsize": 8.0},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.linewidth": 0.7},
    **{"legend.frameon": False, "legend.fontsize": 8.0, "hatch.linewidth": 0.6, "pdf.fonttype": 42},
    **{"svg.hashsalt": "pilot-bench", "figure.dpi": 100.0, "image.interpolation": "nearest"},
}


class SkipFigure(Exception):
    """Raised if the data for a figure are missing; the message names what is missing."""


@dataclass(frozen=True)
class MethodStyle:
    """Colour, marker and hatch of a method."""

    colour: str
    marker: str
    hatch: str


_COLOURS = {
    "#CC79A7": ("Server optimisers, drift", "Asynchronous"),
    "#8C6D1F": ("Personalised", "By task"),
    "#5E4FA2": ("LoRA-aware",),
    "#F0A070": ("Variants of Pilot, ours",),
}
"""Families beyond the core one, by colour. Within a colour, marker and hatch tell methods apart."""
_SHAPES = ("p", "h", "<", ">", "X", "P", "*", "d", "8", "H", "$+$", "$x$", "$T$", "$Y$", "$V$", "$Z$", "$N$", "$L$")
_HATCHES = ("", "..", "xx", "\\\\", "--", "++", "oo", "OO", "**", "||", "-\\", "+o")
_STYLES = {
    "pilot": MethodStyle("#D55E00", "o", ""),
    "fedavg": MethodStyle("#0072B2", "s", ""),
    "fedprox": MethodStyle("#56B4E9", "^", ""),
    "fedmoe": MethodStyle("#009E73", "D", ""),
    "local": MethodStyle("#E69F00", "v", ""),
    "central": MethodStyle("#333333", "P", "//"),
    "full": MethodStyle("#666666", "d", "xx"),
    "untuned": MethodStyle("#999999", "X", "//"),
    "majority": MethodStyle("#CCCCCC", "*", "//"),
}
_STYLES |= {
    name: MethodStyle(colour, _SHAPES[place % len(_SHAPES)], _HATCHES[place % len(_HATCHES)])
    for colour, families in _COLOURS.items()
    for place, name in enumerate(name for family in families for name in FAMILIES[family])
}


def method_style(label: str) -> MethodStyle:
    """Return the style of a method; that of a variant or a method of another package depends on its name alone."""
    name = base_name(label.split(" ", 1)[0])
    if label in _STYLES:
        return _STYLES[label]
    code = zlib.crc32(label.encode())
    colour = ("#CC79A7", "#F0E442", "#E69F00", "#56B4E9")[code % 4] if name not in _STYLES else _STYLES[name].colour
    return MethodStyle(colour, MARKERS[code // 4 % len(MARKERS)], ("..", "xx", "\\\\", "--")[code // 64 % 4])


@dataclass(frozen=True)
class Source:
    """Data for the figures of one scenario: its folder and the runs of the chosen methods."""

    scenario_dir: Path
    runs: tuple[Run, ...]

    @property
    def scenario(self) -> str:
        """Name of the scenario."""
        return self.runs[0].scenario if self.runs else self.scenario_dir.name

    @property
    def methods(self) -> list[str]:
        """Labels in table order, references last."""
        return sorted(sort_methods(run.label for run in self.runs), key=self.is_reference)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks in scenario order.

        Raises:
            SkipFigure: no runs.
        """
        if not self.runs:
            raise SkipFigure("there are no runs of the chosen methods")
        return self.runs[0].tasks

    def first_runs(self) -> dict[str, Run]:
        """Return the run with the lowest seed of each method."""
        return {label: min(self.seeds(label), key=lambda run: run.seed) for label in self.methods}

    def is_reference(self, label: str) -> bool:
        """Return whether a method is a reference."""
        return any(is_reference(run.method, run.reference) for run in self.seeds(label))

    def seeds(self, label: str) -> list[Run]:
        """Return all runs of one method."""
        return [run for run in self.runs if run.label == label]

    @cached_property
    def main(self) -> pandas.DataFrame:
        """Rows of `tables/main.csv` for the chosen methods."""
        return self._table("main.csv")

    @cached_property
    def per_client(self) -> pandas.DataFrame:
        """Rows of `tables/per_client.csv` for the chosen methods."""
        return self._table("per_client.csv")

    @cached_property
    def curves(self) -> pandas.DataFrame:
        """Rows of `tables/curves.csv` for the chosen methods."""
        return self._table("curves.csv")

    @property
    def timed(self) -> bool:
        """Return whether the curves have times of a virtual clock."""
        return bool(self.curves.time.notna().any())

    @cached_property
    def matrix(self) -> pandas.DataFrame:
        """Rows of `tables/matrix.csv` for the chosen methods."""
        return self._table("matrix.csv")

    @cached_property
    def fairness(self) -> pandas.DataFrame:
        """Rows of `tables/fairness.csv` for the chosen methods."""
        return self._table("fairness.csv")

    @cached_property
    def targets(self) -> pandas.DataFrame:
        """Rows of `tables/targets.csv` for the chosen methods."""
        return self._table("targets.csv")

    @cached_property
    def unseen(self) -> pandas.DataFrame:
        """Rows of `tables/unseen.csv` for the chosen methods."""
        return self._table("unseen.csv")

    @cached_property
    def conditions(self) -> pandas.DataFrame:
        """Rows of `tables/conditions.csv` for the chosen methods."""
        return self._table("conditions.csv")

    @cached_property
    def forgetting(self) -> pandas.DataFrame:
        """Rows of `tables/forgetting.csv` for the chosen methods."""
        return self._table("forgetting.csv")

    def primary(self, task: Task) -> pandas.DataFrame:
        """Return the rows of `main.csv` with a value for a task's primary metric (personalised), by method."""
        rows = self.main
        chosen = (rows.task == task.name) & (rows.metric == task.metric)
        found = rows[chosen & (rows.protocol == "personalised") & rows["mean"].notna()]
        return found.set_index("method", drop=False)

    def status(self, task: Task, label: str) -> str:
        """Return why a task's primary metric has no value: `missing` without any answers, else `unavailable`."""
        rows = self.main
        found = rows[(rows.task == task.name) & (rows.metric == task.metric) & (rows.method == label)]
        return str(found.status.iloc[0]) if len(found) else "unavailable"

    def _table(self, name: str) -> pandas.DataFrame:
        path = self.scenario_dir / "tables" / name
        if not path.exists():
            raise SkipFigure(f"{path} is missing (write the tables first)")
        rows = pandas.read_csv(path, keep_default_na=False, na_values=[""])
        return rows[rows.method.isin(self.methods)]


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure (size in inches) with a layout that keeps texts from overlapping."""
    return Figure(figsize=(width, height), layout="constrained")


def style_context(page: Page = SCREEN) -> AbstractContextManager[None]:
    """Apply the Matplotlib settings of all figures on top of the defaults, ignoring the user's settings."""
    return matplotlib.rc_context(dict(matplotlib.rcParamsDefault) | _RC | page.rc)


def save(figure: Figure, folder: Path, name: str, page: Page = SCREEN) -> list[Path]:
    """Write `<name>.png` (200 dpi) and `<name>.pdf`, for paper only the latter, without dates or versions.

    Returns:
        The files written.
    """
    formats: dict[str, dict[str, Any]] = {
        "png": {"dpi": 200, "metadata": {"Software": None}},
        "pdf": {"dpi": 200, "metadata": {"CreationDate": None, "Producer": None, "Creator": None}},
    }
    if page.paper:
        del formats["png"]
    paths = []
    for form, options in formats.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, facecolor="white", **options)
        paths.append(folder / f"{name}.{form}")
        write_bytes(paths[-1], buffer.getvalue())
    return paths


def save_pages(draw: Callable[[Page], Figure], folder: Path, name: str, paper: Path | None) -> list[Path]:
    """Write a figure for the screen into `folder`, and its two for paper into `paper` if given; return their paths."""
    with style_context():
        written = save(draw(SCREEN), folder, name)
    return written + (save_paper(draw, paper, name) if paper else [])


def save_paper(draw: Callable[[Page], Figure], folder: Path, name: str) -> list[Path]:
    """Write `<name>-column.pdf` and `<name>-text.pdf` into `folder`; return their paths."""
    written = []
    for page in PAPER:
        with style_context(page):
            written += save(draw(page), folder, f"{name}-{page.name}", page)
    return written


def title(figure: Figure, text: str, page: Page) -> None:
    """Set a small title above all axes, wrapped to the figure's width; not on paper, where the caption replaces it."""
    if page.paper:
        return
    width = int(figure.get_figwidth() * _CHARACTERS_PER_INCH)
    figure.suptitle("\n".join(textwrap.wrap(text, width)), fontsize=8, color=DARK)


def separate_tasks(axes: Axes, tasks: Sequence[str]) -> None:
    """Draw white lines between tasks in a matrix of clients; `tasks` holds each client's task."""
    for place in range(1, len(tasks)):
        if tasks[place] != tasks[place - 1]:
            axes.axhline(place - 0.5, color="white", lw=1.5)
            axes.axvline(place - 0.5, color="white", lw=1.5)


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """Add a legend below all axes, inside the layout, in as many columns as fit."""
    columns = _columns(figure.get_figwidth(), handles)
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, handlelength=1.6)


def legend_height(handles: Sequence[Any], page: Page) -> float:
    """Return the height in inches that `legend_below` takes on paper."""
    return 0.1 + _LEGEND_ROW * math.ceil(len(handles) / _columns(page.width or math.inf, handles))


def _columns(width: float, handles: Sequence[Any]) -> int:
    longest = max(len(handle.get_label()) for handle in handles)
    return int(max(1, min(width / (0.5 + longest / _CHARACTERS_PER_INCH), len(handles))))
