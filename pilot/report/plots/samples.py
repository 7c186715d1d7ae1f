"""Figure `samples`: test images with question, reference and every method's answer."""

import hashlib
import io
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from pilot.config.model import Frame
from pilot.data.frames import answer_in_frame, from_frame, image_size
from pilot.data.manifest import checked_records
from pilot.data.tables import iterate_rows
from pilot.matplotlib_import import Axes, Figure, Rectangle
from pilot.report.numbers.files import read_samples
from pilot.report.numbers.load import Run, Task
from pilot.report.plots.page import COLUMN, SCREEN, TEXT, Page
from pilot.report.plots.style import DARK, SkipFigure, Source, method_style

_MAX_LINES = 3
_MAX_METHODS_ON_PAPER = 8


@dataclass(frozen=True)
class Layout:
    """Measures of a page: examples per task, characters per line (`wrap`), and lengths in inches."""

    per_task: int
    wrap: int
    line: float
    image: float
    text: float
    head: float

    @property
    def width(self) -> float:
        """Width of an example with its text and the gap to the next."""
        return self.image + self.text + 0.15


_LAYOUTS = {
    SCREEN: Layout(2, 52, 0.118, 1.75, 3.05, 0.4),
    COLUMN: Layout(1, 36, 0.125, 1.15, 2.03, 0.0),
    TEXT: Layout(2, 36, 0.125, 1.2, 2.15, 0.0),
}


@dataclass(frozen=True)
class Sample:
    """One test example with its answers and the frames of their boxes, by method."""

    task: Task
    image: np.ndarray
    instruction: str
    references: tuple[str, ...]
    box: tuple[float, ...] | None
    answers: dict[str, str]
    frames: dict[str, Frame]


def draw(source: Source, page: Page = SCREEN) -> Figure:
    """Draw two examples per task, chosen by the digest of their id and so independently of the answers.

    Answers are from the lowest seed; those of a personalised method from the model of the task's first client. Boxes
    are drawn in the method's colour, the true box black on white. A column of a paper has one example per task, and on
    paper only the first eight methods in table order are shown. Reads `data/<task>/records.parquet` and
    `eval/samples.jsonl`.
    """
    layout, most = _LAYOUTS[page], _MAX_METHODS_ON_PAPER if page.paper else None
    answers = {label: _answers(source.first_runs()[label]) for label in source.methods[:most]}
    left_out = len(source.methods) - len(answers)
    rows = [samples for task in source.tasks if (samples := _samples(source, task, answers, layout))]
    if not rows:
        raise SkipFigure("no test example has answers in eval/samples.jsonl and an image in data/")
    heights = [_height(samples, layout, left_out) for samples in rows]
    full = sum(heights) + 0.34 * len(rows) + layout.head
    figure = Figure(figsize=page.inches((layout.width * layout.per_task, full), full))
    top = figure.get_figheight() - layout.head
    if not page.paper:
        figure.text(0.01, 1 - 0.2 / figure.get_figheight(), _title(source), fontsize=8, color=DARK, va="center")
    for samples, height in zip(rows, heights, strict=True):
        figure.text(
            0.01,
            (top - 0.12) / figure.get_figheight(),
            samples[0].task.name,
            fontsize=page.points(9),
            weight="bold",
            va="center",
        )
        top -= 0.26
        for column, sample in enumerate(samples):
            _place(figure, sample, 0.08 + column * layout.width, top, height, layout, left_out)
        top -= height + 0.08
    return figure


def pick(ids: Iterable[str], count: int) -> list[str]:
    """Return the first `count` ids in the order of their SHA-256: a fixed draw that depends on nothing else."""
    return sorted(ids, key=lambda id: hashlib.sha256(id.encode()).hexdigest())[:count]


def read_examples(scenario_dir: Path, task: str, ids: Iterable[str], count: int) -> list[dict[str, Any]]:
    """Read the examples that `pick` chooses from a task's records, in its order; none without ids or without data."""
    path = checked_records(scenario_dir / "data", task)
    chosen = pick(ids, count)
    if not path.exists() or not chosen:
        return []
    place = {name: number for number, name in enumerate(chosen)}
    rows = iterate_rows(path, ["id", "image", "instruction", "references", "box"])
    return sorted((row for row in rows if row["id"] in place), key=lambda row: place[row["id"]])


def _title(source: Source) -> str:
    seeds = sorted({run.seed for run in source.first_runs().values()})
    return (
        f"{source.scenario}, seed {', '.join(map(str, seeds))}: examples drawn by the digest of their id; "
        "personalised methods answer with the task's first client"
    )


def _answers(run: Run) -> dict[tuple[str, str], dict[str, Any]]:
    path = run.path / "eval" / "samples.jsonl"
    first = {task.name: task.clients[0] for task in run.tasks}
    return {
        (row["task"], row["id"]): row
        for row in (read_samples(run.path) if path.exists() else [])
        if row["protocol"] == "personalised" and first.get(row["task"]) in row["clients"]
    }


def _samples(
    source: Source, task: Task, answers: dict[str, dict[tuple[str, str], dict[str, Any]]], layout: Layout
) -> list[Sample]:
    from PIL import Image

    ids = {id for found in answers.values() for name, id in found if name == task.name}
    samples = []
    for row in read_examples(source.scenario_dir, task.name, ids, layout.per_task):
        said = {
            label: found[task.name, row["id"]]["prediction"]
            for label, found in answers.items()
            if (task.name, row["id"]) in found
        }
        frames = {label: answers[label][task.name, row["id"]].get("frame", "original") for label in said}
        image = np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB"))
        box = None if row["box"] is None else tuple(row["box"])
        references = references_in(row, task.frame)
        samples.append(Sample(task, image, row["instruction"], references, box, said, frames))
    return samples


def references_in(row: Mapping[str, Any], frame: str) -> tuple[str, ...]:
    """Return the references of a row of a records file; a box is written as a correct answer in `frame` would be."""
    if row["box"] is None or frame in ("", "original"):
        return tuple(row["references"])
    size = image_size(row["image"])
    return tuple(answer_in_frame(text, row["box"], cast(Frame, frame), size) for text in row["references"])


def _height(samples: list[Sample], layout: Layout, left_out: int) -> float:
    return max(layout.image, *(layout.line * (len(_lines(sample, layout, left_out)) + 1.5) for sample in samples))


def _lines(sample: Sample, layout: Layout, left_out: int) -> list[tuple[str, str]]:
    """Return (method or "", text) of every line beside the image; long answers are cut after three lines."""
    lines = [("", text) for text in _wrap(f"Q: {sample.instruction}", layout, 5)]
    lines += [("", text) for text in _wrap(f"Reference: {sample.references[0]}", layout, _MAX_LINES)]
    for label, answer in sample.answers.items():
        first, *rest = _wrap(f"{label}: {' '.join(answer.split()) or '(empty)'}", layout, _MAX_LINES)
        lines += [(label, first), *(("", text) for text in rest)]
    return [*lines, *([("", f"({left_out} more methods not shown)")] if left_out else [])]


def _wrap(text: str, layout: Layout, most: int) -> list[str]:
    return textwrap.wrap(text, layout.wrap, max_lines=most, placeholder=" …", break_long_words=True) or [""]


def _place(
    figure: Figure, sample: Sample, left: float, top: float, height: float, layout: Layout, left_out: int
) -> None:
    """Draw a sample's image and text; `left` and `top` are inches from the figure's left and bottom edge."""
    width, full = figure.get_size_inches()
    side = layout.image
    picture = figure.add_axes((left / width, (top - side) / full, side / width, side / full))
    _picture(picture, sample)
    words = figure.add_axes(((left + side + 0.1) / width, (top - height) / full, layout.text / width, height / full))
    words.axis("off")
    words.set_xlim(0, layout.text)
    words.set_ylim(height, 0)
    letters = 6.5 if layout == _LAYOUTS[SCREEN] else 7.0
    for index, (label, text) in enumerate(_lines(sample, layout, left_out)):
        y = layout.line * (index + 0.5)
        if label:
            words.add_patch(Rectangle((0, y - 0.035), 0.07, 0.07, color=method_style(label).colour, lw=0))
        # An unescaped dollar sign would start Matplotlib's math mode.
        words.text(0.12, y, text.replace("$", r"\$"), fontsize=letters, va="center", color="black")


def _picture(axes: Axes, sample: Sample) -> None:
    height, width = sample.image.shape[:2]
    axes.imshow(sample.image, interpolation="nearest", extent=(0, width, height, 0))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    if sample.box is None:
        return
    from pilot.evaluation.grounding import parse_box

    axes.add_patch(_rectangle(sample.box, width, height, "white", 3.4, "-"))
    axes.add_patch(_rectangle(sample.box, width, height, "black", 1.6, (0, (3, 1.5))))
    for label, answer in sample.answers.items():
        if (box := parse_box(answer, sample.frames[label])) is not None:
            inside = from_frame(box, sample.frames[label], (width, height))
            axes.add_patch(_rectangle(inside, width, height, method_style(label).colour, 1.3, "-"))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)


def _rectangle(box: tuple[float, ...], width: int, height: int, colour: str, line: float, style: Any) -> Rectangle:
    x1, y1, x2, y2 = box
    return Rectangle(
        (x1 * width, y1 * height),
        (x2 - x1) * width,
        (y2 - y1) * height,
        fill=False,
        ec=colour,
        lw=line,
        ls=style,
        clip_on=True,
    )
