"""Figure of a study's part with many methods: differences to the baseline with intervals, sorted inside families."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pilot.matplotlib_import import Axes, Figure, MaxNLocator
from pilot.methods.catalogue import FAMILIES, OTHERS, family_of
from pilot.report.numbers.load import Task
from pilot.report.numbers.retraining import LEVEL
from pilot.report.numbers.significance import retrained
from pilot.report.numbers.studies import PartTable
from pilot.report.plots.page import SCREEN, Page
from pilot.report.plots.style import DARK, method_style, new_figure, title

MANY = 16
"""Methods from which on a part is drawn so: a bar for each of them tells a reader nothing."""
_PAPER_ROW = 0.143
"""Inches per row on paper."""


@dataclass(frozen=True)
class Difference:
    """A method's difference to the baseline on a task, its 95 % interval after training again, and whether marked."""

    value: float
    low: float
    high: float
    marked: bool


def draw(table: PartTable, page: Page = SCREEN) -> Figure:
    """Draw a row per method, with the families' names above them, and a panel per task with its own scale.

    Filled dots are differences that would be there after training again, corrected over all tests of the part.
    """
    found = {task.name: differences(table, task) for task in table.tasks}
    rows = sorted_rows(list(found.values()), [name for name in table.part.methods if name != table.part.baseline])
    height = _PAPER_ROW * len(rows) + 0.7
    figure = new_figure(*page.inches((3.1 * len(table.tasks) + 1.9, 0.2 * len(rows) + 1.3), height))
    panels = figure.subplots(1, len(table.tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, table.tasks, strict=True):
        _panel(axes, task, found[task.name], rows, page)
    panels[0].set_yticks(
        range(len(rows)), ["" if page.narrow and not name else name or family for family, name in rows]
    )
    for place, (label, (family, name)) in enumerate(zip(panels[0].get_yticklabels(), rows, strict=True)):
        label.set_fontsize(page.points(7.5))
        label.set_fontweight("normal" if name else "bold")
        if page.narrow and not name:  # a family's row has no dots, and room across all panels
            _across(panels[0], place, family, page)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    title(figure, caption(table), page)
    return figure


def caption(table: PartTable) -> str:
    """Return the figure's caption."""
    return (
        f"{table.part.title}: differences to {table.part.baseline} with 95 % intervals of what training again would "
        "give; filled where they are significant (Holm over all tests). Sorted inside families, best first."
    )


def differences(table: PartTable, task: Task) -> dict[str, Difference]:
    """Return the differences of all methods on a task that have one, in the part's only setting."""
    ((setting, groups),) = table.groups.items()
    result = {}
    for name in table.part.methods:
        test = None if name == table.part.baseline else retrained(groups[name], groups[table.part.baseline], task)
        if test is not None:
            p_holm = table.row(setting, name, task).p_holm
            result[name] = Difference(test.difference, *test.interval, p_holm is not None and p_holm < LEVEL)
    return result


def sorted_rows(tasks: Sequence[Mapping[str, Difference]], methods: Sequence[str]) -> list[tuple[str, str]]:
    """Return (family, method) in order; a family's own row has no method, and comes before those of its methods.

    Methods are sorted by the mean over tasks of their difference, divided by the largest one on the task.
    """
    largest = [max((abs(each.value) for each in task.values()), default=0.0) or 1.0 for task in tasks]
    score = {
        name: sum(task[name].value / top for task, top in zip(tasks, largest, strict=True) if name in task)
        for name in methods
    }
    rows = []
    for family in (*FAMILIES, OTHERS):
        own = [name for name in methods if family_of(name) == family]
        if own:
            rows += [(family, ""), *((family, name) for name in sorted(own, key=lambda name: -score[name]))]
    return rows


def _across(axes: Axes, place: int, family: str, page: Page) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    text = axes.text(
        0.02, place, family, transform=axes.get_yaxis_transform(), va="center", fontsize=page.points(7.5),
        fontweight="bold", bbox=box, zorder=4,
    )  # fmt: skip
    text.set_in_layout(False)
    axes.set_zorder(1)  # above the panels beside it


def _panel(
    axes: Axes, task: Task, found: Mapping[str, Difference], rows: Sequence[tuple[str, str]], page: Page
) -> None:
    axes.axvline(0, color=DARK, lw=0.8)
    thin, size = (0.8, 10) if page.paper else (1.2, 22)
    for place, (_, name) in enumerate(rows):
        if name in found:
            each, style = found[name], method_style(name)
            axes.plot([each.low, each.high], [place, place], color=style.colour, lw=thin, zorder=2)
            fill = style.colour if each.marked else "white"
            axes.scatter([each.value], [place], s=size, color=fill, edgecolor=style.colour, linewidth=thin, zorder=3)
        elif name:
            axes.text(
                0.5, place, "no value", transform=axes.get_yaxis_transform(), va="center", fontsize=page.points(7)
            )
    axes.set_title(task.name, fontsize=page.points(7) if page.narrow else None)
    metric = task.metric.replace("[", "\n[") if page.narrow else task.metric
    axes.set_xlabel(metric)
    axes.xaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]) if page.narrow else MaxNLocator(5))
    axes.grid(axis="x", color="#E5E5E5", lw=0.6)
    axes.tick_params(axis="y", length=0)
