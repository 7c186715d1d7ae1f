"""What the readers of captions share: an image and its captions as rows."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pilot.data.prompts import CAPTION
from pilot.data.rows import Place, Row, Rows
from pilot.io.seeding import seed_for

TrainRows = Literal["image", "caption"]
"""Training rows: one per image, or one per caption. The test split always has one per image."""


def caption_rows(
    place: Place,
    key: str,
    image: str | bytes,
    captions: Sequence[str],
    per: TrainRows,
    attributes: Mapping[str, str] | None = None,
) -> Rows:
    """An image's rows; every row's references are all of its captions.

    Args:
        place: where it was read.
        key: the image's id in the data set.
        image: reference or encoded file.
        captions: at least one.
        per: `image`: one row, whose answer is the caption at `seed_for("caption", key) % len(captions)`, so that it
            depends on the image alone; `caption`: a row `<key>-<n>` per caption, which is the answer.
        attributes: the image's labels.
    """
    references, labels = tuple(captions), dict(attributes or {})
    if per == "image":
        chosen = references[seed_for("caption", key) % len(references)]
        yield Row(place, key, image, CAPTION, chosen, references, labels)
        return
    for number, caption in enumerate(references):
        yield Row(place, f"{key}-{number}", image, CAPTION, caption, references, labels)


def per_of(train_rows: TrainRows, split: str) -> TrainRows:
    """Rows per image or per caption in a split."""
    return train_rows if split == "train" else "image"
