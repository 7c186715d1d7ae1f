"""Shared code of the caption readers: an image and its captions as rows."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pilot.data.prompts import CAPTION
from pilot.data.rows import Place, Row, Rows
from pilot.io.seeding import seed_for

TrainRows = Literal["image", "caption"]
"""Training rows: one per image or one per caption; the test split always has one row per image."""


def caption_rows(
    place: Place,
    key: str,
    image: str | bytes,
    captions: Sequence[str],
    per: TrainRows,
    attributes: Mapping[str, str] | None = None,
) -> Rows:
    """Yield an image's rows; the references of every row are all captions of the image.

    Args:
        place: location in the source.
        key: the image's id in the data set.
        image: reference or encoded file.
        captions: at least one.
        per: `image`: one row, whose answer is the caption at `seed_for("caption", key) % len(captions)`, so that it
            depends only on the image; `caption`: one row `<key>-<n>` per caption, with the caption as answer.
        attributes: the image's labels.
    """
    references, labels = tuple(captions), dict(attributes or {})
    if per == "image":
        chosen = references[seed_for("caption", key) % len(references)]
        yield Row(place, key, image, CAPTION, chosen, references, labels)
        return
    for number, caption in enumerate(references):
        yield Row(place, f"{key}-{number}", image, CAPTION, caption, references, labels)


def rows_per(train_rows: TrainRows, split: str) -> TrainRows:
    """Return whether a split has rows per image or per caption."""
    return train_rows if split == "train" else "image"
