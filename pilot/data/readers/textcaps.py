"""TextCaps 0.1: captions that mention the text in a photograph.

Sidorov et al., ECCV 2020; https://textvqa.org/textcaps/dataset (CC BY 4.0); images as TextVQA's, of Open Images.
A file holds one entry per caption; an image's captions are the distinct texts of `caption_str` and
`reference_strs` of its entries, in order of first occurrence. The official test split has no captions: the official
validation split, whose images are in the same archive as the training images, is used as the test split.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilot.config.base import Model
from pilot.data.readers.captions import TrainRows, caption_rows, rows_per
from pilot.data.readers.files import NamedImage, RelativePath, elements, read_json
from pilot.data.readers.values import FieldError, mapping, text, texts
from pilot.data.rows import Place, Rejected, Rows

WHAT = "a TextCaps file (an object with the list `data`)"
UNREAD = frozenset({"caption_tokens", "reference_tokens", "ocr_tokens", "ocr_info"})


class Options(Model):
    """File for each split, path template of images by name, and rows per image or per caption."""

    train: RelativePath = "textcaps/TextCaps_0.1_train.json"
    test: RelativePath = "textcaps/TextCaps_0.1_val.json"
    image_path: NamedImage = "textvqa/train_images/{image_id}.jpg"
    train_rows: TrainRows = "image"


def read(options: Options, root: Path, split: str) -> Rows:
    """Reject entries that cannot be used; then yield rows of the images in order of first occurrence.

    Raises:
        UserError: the file is missing or not in the format.
    """
    file = options.train if split == "train" else options.test
    images: dict[str, tuple[Place, dict[str, None]]] = {}
    items = elements(read_json(root, file, WHAT, UNREAD), "data", root / file, WHAT)
    for index, item in enumerate(items):
        place = Place(file, index)
        try:
            found = _captions(mapping(item))
            captions = images.setdefault(text(item, "image_id"), (place, {}))[1]
            captions.update(dict.fromkeys(found))
        except FieldError as error:
            yield Rejected(place, error.field, error.reason)
    for key, (place, captions) in images.items():
        image = options.image_path.format(image_id=key)
        yield from caption_rows(place, key, image, tuple(captions), rows_per(options.train_rows, split))


def _captions(item: Mapping[str, Any]) -> list[str]:
    found = [text(item, "caption_str")]
    return found if item.get("reference_strs") is None else [*found, *texts(item, "reference_strs")]
