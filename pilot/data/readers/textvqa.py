"""TextVQA 0.5.1: questions about text in photographs; no OCR tokens are given to the model.

Singh et al., CVPR 2019; https://textvqa.org/dataset (CC BY 4.0); images from Open Images.
The training answer is the most frequent of the ten human answers. The official test split has no answers: the
official validation split, whose images are in the same archive as the training images, is used as the test split.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilot.config.base import Model
from pilot.data.prompts import question
from pilot.data.readers.files import NamedImage, RelativePath, elements, read_json
from pilot.data.readers.values import identifier, make_rows, most_frequent, plain_text, text, texts, unique
from pilot.data.rows import Place, Row, Rows

WHAT = "a TextVQA file (an object with the list `data`)"


class Options(Model):
    """File for each split, and path template of images by name."""

    train: RelativePath = "textvqa/TextVQA_0.5.1_train.json"
    test: RelativePath = "textvqa/TextVQA_0.5.1_val.json"
    image_path: NamedImage = "textvqa/train_images/{image_id}.jpg"


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield one row per question.

    Raises:
        UserError: the file is missing or not in the format.
    """
    file = options.train if split == "train" else options.test
    items = elements(read_json(root, file, WHAT, {"ocr_tokens", "ocr_info"}), "data", root / file, WHAT)
    yield from unique(make_rows(enumerate(items), file, _row, options.image_path), "question_id")


def _row(place: Place, item: Mapping[str, Any], images: str) -> Row:
    references = texts(item, "answers")
    classes = item.get("image_classes")
    first = {"image_class": plain_text(classes[0], "image_classes.0")} if isinstance(classes, list) and classes else {}
    return Row(
        place=place,
        id=identifier(item, "question_id"),
        image=images.format(image_id=text(item, "image_id")),
        instruction=question(text(item, "question")),
        answer=most_frequent(references),
        references=references,
        attributes=first,
    )
