"""Figure `conditions`: test images as they are, and as the clients of each task see them."""

import io

import numpy as np

from pilot.data.conditions import read_seen_images, seen_images_file
from pilot.io.sealed import read_sealed
from pilot.matplotlib_import import Figure
from pilot.report.numbers.load import Task
from pilot.report.plots.page import COLUMN, SCREEN, Page
from pilot.report.plots.samples import read_examples
from pilot.report.plots.style import SkipFigure, Source

PER_TASK = 2
_SIDE, _LABEL, _GAP, _HEAD = 1.0, 0.86, 0.06, 0.24
"""Inches: side of an image, width of a row's label, gap between images, height of the tasks' names."""


def draw(source: Source, page: Page = SCREEN) -> Figure:
    """Draw test images of every task, by the digest of their id: a row as they are, and one for each condition.

    A column of a paper has one image per task. Reads `data/<task>/records.parquet` and `partition/images.parquet`.
    """
    path = seen_images_file(source.scenario_dir)
    if not path.is_file():
        raise SkipFigure("all clients see the same images (no field `conditions`)")
    clients = read_sealed(path.with_name("heterogeneity.json"), {"clients": list})["clients"]
    names = list(dict.fromkeys(tuple(client.get("conditions", ())) for client in clients))
    count = 1 if page == COLUMN else PER_TASK
    columns = [column for task in source.tasks for column in _columns(source, task, len(names), count)]
    if not columns:
        raise SkipFigure("no test image is in data/")
    rows = ["as they are", *("\n".join(each) or "as they are" for each in names)]
    side = _SIDE if page.width is None else (page.width - _LABEL) / len(columns) - _GAP
    width, height = _LABEL + len(columns) * (side + _GAP), _HEAD + len(rows) * (side + _GAP)
    figure = Figure(figsize=page.inches((width, height), height))
    for place, (title, images) in enumerate(columns):
        left = _LABEL + place * (side + _GAP)
        figure.text(left / width, 1 - _HEAD / 2 / height, title, fontsize=page.points(7.5), va="center")
        for row, image in enumerate(images):
            bottom = height - _HEAD - (row + 1) * (side + _GAP) + _GAP
            axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
            axes.imshow(image, interpolation="nearest")
            axes.axis("off")
    for row, text in enumerate(rows):
        middle = height - _HEAD - (row + 0.5) * (side + _GAP)
        figure.text(0.05 / width, middle / height, text, fontsize=page.points(7.5), va="center")
    return figure


def _columns(source: Source, task: Task, num_conditions: int, count: int) -> list[tuple[str, list[np.ndarray]]]:
    """Return images of a task, each as it is and under every condition; the first has the task's name as title."""
    path, found = seen_images_file(source.scenario_dir), []
    named = read_seen_images(path, task.name, images=False)
    ids = sorted({name for name, place in named if place and (name, 0) in named})  # only test images have several
    rows = read_examples(source.scenario_dir, task.name, ids, count)
    seen = read_seen_images(path, task.name, ids={row["id"] for row in rows})
    for number, row in enumerate(rows):
        files = [row["image"], *(seen[row["id"], place].image for place in range(num_conditions))]
        found.append(("" if number else task.name, [_pixels(file) for file in files]))
    return found


def _pixels(image: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
