"""Data of the sample browser: test images with question, references, and the answers of every method's models."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilot.config.model import Frame
from pilot.data.frames import Size, from_frame
from pilot.evaluation.grounding import parse_box
from pilot.report.numbers.files import read_samples
from pilot.report.numbers.load import Run, Task
from pilot.report.plots.samples import read_examples, references_in
from pilot.report.plots.style import Source

PER_TASK = 300
"""Largest number of examples per task, drawn by the digest of their id."""
LONGEST_SIDE = 256
"""Largest side of an image in pixels; smaller images keep their size and are stored without loss."""
MIN_RIGHT_SCORE = {"CIDEr": 1.0}
"""Lowest score of an answer that counts as right in the browser's filters; 0.5 for the other metrics."""

ORIGINAL: tuple[Frame, Size] = "original", (1, 1)

FramedAnswer = tuple[str, tuple[Frame, Size]]
"""An answer, and the coordinate frame of its boxes with the size of the image."""
Answers = dict[str, dict[str, dict[int, tuple[FramedAnswer, float | None]]]]
"""task -> example id -> client -> answer and its score."""


class AnswerTable:
    """Distinct answers, numbered in order of appearance: answers repeat, so the page stores their numbers."""

    def __init__(self) -> None:
        self._numbers: dict[FramedAnswer, int] = {}

    def number(self, said: FramedAnswer) -> int:
        """Return the number of an answer; a new answer gets the next one."""
        return self._numbers.setdefault(said, len(self._numbers))

    def texts(self) -> list[str]:
        """Return the texts of the answers by number."""
        return [text for text, _ in self._numbers]

    def boxes(self) -> list[list[float] | None]:
        """Return the boxes in the answers by number, as fractions of the image's sides."""
        return [_box(text, *frame) for text, frame in self._numbers]


def sample_browser(source: Source, per_task: int = PER_TASK) -> dict[str, Any]:
    """Collect examples, the answers of every method's lowest seed, and their scores on the primary metric.

    Per example and method, answers (as numbers, see `AnswerTable`) and scores are lists: one entry if all clients of
    the task have the same answer and score, else one per client, in the task's order. Boxes are fractions of the
    image's sides.
    """
    words = AnswerTable()
    runs = source.first_runs()
    answers = {label: _answers(run, {task.name: task.metric for task in source.tasks}) for label, run in runs.items()}
    tasks = [shown for task in source.tasks if (shown := _task(source.scenario_dir, task, answers, words, per_task))]
    return {
        "methods": list(runs),
        "seeds": {label: run.seed for label, run in runs.items()},
        "tasks": tasks,
        "words": words.texts(),
        "boxes": words.boxes(),
    }


def _box(text: str, frame: Frame, size: Size) -> list[float] | None:
    """Return the box in an answer in the original frame, as the grounding metrics parse it; None without one."""
    box = parse_box(text, frame)
    return None if box is None else [round(side, 4) for side in from_frame(box, frame, size)]


def _answers(run: Run, metrics: Mapping[str, str]) -> Answers:
    found: Answers = {}
    path = run.path / "eval" / "samples.jsonl"
    for row in read_samples(run.path) if path.exists() else []:
        if row["protocol"] != "personalised" or row["task"] not in metrics:
            continue
        scores = run.per_example.get((row["task"], "personalised", metrics[row["task"]]), {})
        for client in row["clients"]:
            score = scores.get(client, {}).get(row["id"])
            frame = (row["frame"], tuple(row["size"])) if "frame" in row else ORIGINAL
            found.setdefault(row["task"], {}).setdefault(row["id"], {})[client] = (row["prediction"], frame), score
    return found


def _task(
    folder: Path, task: Task, answers: Mapping[str, Answers], words: AnswerTable, per_task: int
) -> dict[str, Any] | None:
    ids = {id for found in answers.values() for id in found.get(task.name, {})}
    rows = sorted(read_examples(folder, task.name, ids, per_task), key=lambda row: row["id"])
    if not rows:
        return None
    return {
        **{"name": task.name, "kind": task.kind, "metric": task.metric, "clients": list(task.clients)},
        **{"rightFrom": MIN_RIGHT_SCORE.get(task.metric, 0.5), "total": len(ids)},
        "examples": [_example(row, task, answers, words) for row in rows],
    }


def _example(row: Mapping[str, Any], task: Task, answers: Mapping[str, Answers], words: AnswerTable) -> dict[str, Any]:
    said, scores = [], []
    for found in answers.values():
        own = found.get(task.name, {}).get(row["id"], {})
        pairs = [own.get(client) for client in task.clients]
        pairs = pairs[:1] if len(set(pairs)) == 1 else pairs
        said.append([None if pair is None else words.number(pair[0]) for pair in pairs])
        scores.append([None if pair is None or pair[1] is None else round(pair[1], 3) for pair in pairs])
    return {
        **{"id": row["id"], "image": data_uri(row["image"]), "question": row["instruction"]},
        **{"references": list(references_in(row, task.frame)), "box": row["box"], "answers": said, "scores": scores},
    }


def data_uri(data: bytes) -> str:
    """Encode an image as a data URI: WebP, lossless unless the image had to be scaled down."""
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    small = max(image.size) <= LONGEST_SIDE
    if not small:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=small, quality=100 if small else 80, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
