"""Functions that the lm-eval task files call: a scenario's records as documents, prompts, scores.

The records are read from the first of these that is given:

- `--metadata '{"data": "<folder>"}'` (or `TaskManager(metadata={"data": ...})`; `pilot-bench evaluate` passes it),
- `PILOT_DATA=<folder>` in the environment,
- the embedded profile's folder of the scenario, below the current folder (not for `pilot_vqa`, `pilot_caption` and
  `pilot_ground`, which serve any task of their kind).

The folder holds `<task>/records.parquet`; metadata key `task` names the task, by default the task file's. Metadata key
`ids` names a selection: a file with one id per line, or a JSON file with a list of ids, from any split (such as a
client's held-out part); without it, the test split is used. Metadata key `frame` is the frame of boxes in answers, by
default that of the run that answers (`--model pilot --model_args run=...`), else `original`. Metadata key `seen` is
the file of images as clients see them (`partition/images.parquet`): clients' own records are shown with it, and test
images if the key `condition` has the place of a client's imaging conditions. lm-eval also passes the
model's other arguments and the task's other metadata as keyword arguments; they are ignored.
"""

import io
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilot.config.model import FRAMES, Frame
from pilot.data.conditions import SeenImage, read_seen_images
from pilot.data.conversation import conversation_text
from pilot.data.frames import answer_in_frame, image_size, to_frame
from pilot.data.manifest import checked_records
from pilot.data.record import EARLIER
from pilot.data.tables import check_columns, iterate_rows
from pilot.errors import UserError
from pilot.evaluation import caption, grounding, vqa
from pilot.io.atomic import read_json
from pilot.io.text import decode

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

DATA_VARIABLE = "PILOT_DATA"
_COLUMNS = ("id", "instruction", "answer", "references", "box", "attributes", "image_sha256", "split")
# Image bytes by digest. They are not in the documents, which lm-eval hashes and logs as JSON.
_IMAGES: dict[str, bytes] = {}

CaptionItem = tuple[str, str, tuple[str, ...]]


def load_records(
    record_task: str | None = None,
    default_data: str | None = None,
    data: str | None = None,
    ids: str | None = None,
    task: str | None = None,
    frame: str | None = None,
    run: str | None = None,
    seen: str | None = None,
    condition: str | None = None,
    **_: object,
) -> "dict[str, Dataset]":
    """Load the documents of a task as {"test": dataset}.

    Raises:
        UserError: no task or folder is named, no records file, an unknown frame, or the selection names an unknown id
            or is empty.
    """
    from datasets import Dataset

    name, place = task or record_task, data or os.environ.get(DATA_VARIABLE) or default_data
    if not name or not place:
        raise UserError(
            "lm-eval task for any data: expected the metadata keys `task` (its name) and `data` (the folder that holds "
            f"<task>/records.parquet; or the variable {DATA_VARIABLE}). Pass them with --metadata."
        )
    path = checked_records(Path(place), name)
    if not path.is_file():
        raise UserError(
            f"{path}: no such file. Build the scenario's data, or name the folder that holds {name}/ "
            f"with the variable {DATA_VARIABLE} or the metadata key `data`."
        )
    columns = [*_COLUMNS, "image"]
    earlier = [EARLIER] if EARLIER in check_columns(path, columns) else []
    rows = _select(iterate_rows(path, [*columns, *earlier]), ids, path)
    if seen is not None:
        try:
            shown = read_seen_images(Path(seen), name, ids={row["id"] for row in rows})
            _show_as_seen(rows, shown, condition)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"metadata keys seen and condition: {seen} has no image of a selected record under condition "
                f"{condition!r}. Expected a place in the scenario's field conditions (0, 1, ...), and records of the "
                "test split or of a client."
            ) from error
    frame = frame or _frame_of(run)
    if frame not in FRAMES:
        raise UserError(f"metadata key frame: expected one of {', '.join(FRAMES)}, got {frame!r}.")
    for row in rows:
        if row["box"] is not None and frame != "original":
            row |= _framed(row, frame)
        _IMAGES[row["image_sha256"]] = row.pop("image")
    return {"test": Dataset.from_list(rows)}


def _frame_of(run: str | None) -> str:
    """Return the frame of the boxes that a run's models answer with."""
    if run is None or not (Path(run) / "config.json").is_file():
        return "original"
    tasks = read_json(Path(run) / "config.json", {"tasks": list})["tasks"]
    return next((task["frame"] for task in tasks if isinstance(task, dict) and "frame" in task), "original")


def _framed(row: Mapping[str, Any], frame: Frame) -> dict[str, Any]:
    """Return frame, image size and converted answers of a grounding record."""
    size = image_size(row["image"])
    turns = [
        turn | {"answer": answer_in_frame(turn["answer"], turn["box"], frame, size)} for turn in row.get(EARLIER) or ()
    ]
    answer = answer_in_frame(row["answer"], row["box"], frame, size)
    return {"frame": frame, "size": size, "answer": answer} | ({EARLIER: turns} if turns else {})


def _show_as_seen(
    rows: Sequence[dict[str, Any]], images: Mapping[tuple[str, int], SeenImage], condition: str | None
) -> None:
    """Replace the images of clients' records by those that the client sees, and test images by those of a condition."""
    own = {name: image for (name, _), image in images.items()}
    for row in rows:
        if row["split"] != "test":
            image = own[row["id"]]  # a training record has one client, so one image
        elif condition is not None:
            image = images[row["id"], int(condition)]
        else:
            continue
        row |= {"image": image.image, "image_sha256": image.sha256}


def _select(rows: Iterable[dict[str, Any]], ids: str | None, path: Path) -> list[dict[str, Any]]:
    """Select the test split, or the rows that the selection file names, in its order."""
    if ids is None:
        selected = [row for row in rows if row["split"] == "test"]
    else:
        wanted = read_json(Path(ids)) if ids.endswith(".json") else decode(Path(ids).read_bytes()).split("\n")
        wanted = [name.strip() for name in wanted if name.strip()]
        chosen = set(wanted)
        by_id = {row["id"]: row for row in rows if row["id"] in chosen}
        unknown = [name for name in wanted if name not in by_id]
        if unknown:
            raise UserError(f"{ids}: {len(unknown)} ids are not in {path}, first: {unknown[0]!r}")
        selected = [by_id[name] for name in dict.fromkeys(wanted)]
    if not selected:
        raise UserError(f"{path}: no records selected ({'split test' if ids is None else ids})")
    return selected


def doc_to_image(doc: Mapping[str, Any]) -> "list[Image]":
    """Return the image of a document, RGB; an RGB image's pixels are decoded on first access."""
    from PIL import Image

    image = Image.open(io.BytesIO(_IMAGES[doc["image_sha256"]]))
    return [image if image.mode == "RGB" else image.convert("RGB")]


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return LLaVA-1.5's user turn; the model adds the chat template around it."""
    return f"<image>\n{conversation_text(doc.get(EARLIER) or (), doc['instruction'])}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Return the training target. (A template would turn "[0.10, ...]" into a list of floats.)"""
    return str(doc["answer"])


def process_vqa(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score an answer: two official variants with ten references, else exact match."""
    return vqa.score_example(results[0], doc["references"])


def process_ground(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Compute hit, intersection over union and parse failure in the frame of the answers."""
    frame: Frame = doc.get("frame") or "original"
    box = to_frame(doc["box"], frame, doc["size"]) if frame != "original" else doc["box"]
    return grounding.score_example(results[0], box, frame)


def process_caption(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, CaptionItem]:
    """Return id, caption and references for every metric; the aggregation scores the whole corpus."""
    item = (str(doc["id"]), results[0], tuple(doc["references"]))
    return dict.fromkeys(caption.METRICS, item)


@lru_cache(maxsize=1)
def _score_corpus(items: tuple[CaptionItem, ...]) -> caption.Results:
    """Compute all metrics of a corpus; cached, since lm-eval requests them one by one with the same items.

    Raises:
        UserError: two captions have the same id; a mapping would keep and score only the second.
    """
    predictions = {name: prediction for name, prediction, _ in items}
    if len(predictions) < len(items):
        repeated = Counter(name for name, _, _ in items).most_common(1)[0][0]
        raise UserError(f"two captions have the id {repeated!r}: ids must be unique within a task")
    return caption.score(predictions, {name: references for name, _, references in items})


def _corpus(items: Sequence[CaptionItem], *, metric: str) -> float:
    """Compute one metric of a corpus, NaN if unavailable; log the reason, which lm-eval cannot store."""
    frozen = tuple((name, prediction, tuple(references)) for name, prediction, references in items)
    result = _score_corpus(frozen)[metric]
    if result.reason:
        logging.getLogger(__name__).warning("%s (%s): %s", metric, result.status, result.reason)
    return math.nan if result.value is None else result.value


corpus_bleu_1 = partial(_corpus, metric="BLEU-1")
corpus_bleu_2 = partial(_corpus, metric="BLEU-2")
corpus_bleu_3 = partial(_corpus, metric="BLEU-3")
corpus_bleu_4 = partial(_corpus, metric="BLEU-4")
corpus_meteor = partial(_corpus, metric="METEOR")
corpus_rouge_l = partial(_corpus, metric="ROUGE-L")
corpus_cider = partial(_corpus, metric="CIDEr")
corpus_spice = partial(_corpus, metric="SPICE")
