"""COCO 2014 captions in Karpathy's split: `dataset_coco.json`.

Karpathy and Fei-Fei, CVPR 2015; https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip; captions
CC BY 4.0 (https://cocodataset.org/#termsofuse), images under their own terms. 113,287 images train (`train` and
`restval`), 5,000 `val`, 5,000 `test`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pilot.data.readers.captions import TrainRows, caption_rows, per_of
from pilot.data.readers.categories import NONE, largest_objects
from pilot.data.readers.files import FolderImage, RelativePath, elements, read_json
from pilot.data.readers.values import FieldError, expect, identifier, mapping, sequence, text, unique
from pilot.data.rows import Place, Rejected, Rows
from pilot.settings import Model

WHAT = "a file of Karpathy's caption_datasets.zip (an object with the list `images`)"
KarpathySplit = Literal["train", "restval", "val", "test"]
SPLITS = ("train", "restval", "val", "test")


class Options(Model):
    """The file, which of its splits are ours, where images stand, and rows per image or per caption.

    `instances`: COCO's `instances_train2014.json` and `instances_val2014.json`; with them every image has the labels
    `category` and `supercategory` of its largest object, to partition by.
    """

    file: RelativePath = "karpathy/dataset_coco.json"
    image_path: FolderImage = "coco/{folder}/{file_name}"
    train_splits: tuple[KarpathySplit, ...] = ("train", "restval")
    test_splits: tuple[KarpathySplit, ...] = ("test",)
    train_rows: TrainRows = "image"
    instances: tuple[RelativePath, ...] = ()


def read(options: Options, root: Path, split: str) -> Rows:
    """Rows of the split's images; an image without a usable split is rejected in either split.

    Raises:
        UserError: a file is missing or not in the format.
    """
    wanted = options.train_splits if split == "train" else options.test_splits
    objects = largest_objects(root, options.instances)
    yield from unique(_rows(options, root, split, wanted, objects), "cocoid")


def images_of(root: Path, file: str, wanted: Sequence[str]) -> Iterator[tuple[Place, Mapping[str, Any]] | Rejected]:
    """The images of the wanted splits with their places.

    Raises:
        UserError: the file is missing or not in the format.
    """
    document = read_json(root, file, WHAT, {"tokens", "sentids"})
    for index, item in enumerate(elements(document, "images", root / file, WHAT)):
        place = Place(file, index)
        try:
            named = text(mapping(item), "split")
            expect(named in SPLITS, "split", f"one of {', '.join(SPLITS)}", named)
            if named in wanted:
                yield place, item
        except FieldError as error:
            yield Rejected(place, error.field, error.reason)


def sentences(item: Mapping[str, Any]) -> list[str]:
    """The captions of an image.

    Raises:
        FieldError: there are none, or one is not a text.
    """
    found = sequence(item.get("sentences"), "sentences")
    expect(len(found) > 0, "sentences", "at least one sentence", found)
    return [text(mapping(sentence, f"sentences.{n}"), "raw") for n, sentence in enumerate(found)]


def _rows(options: Options, root: Path, split: str, wanted: Sequence[str], objects: Mapping[str, Any]) -> Rows:
    per = per_of(options.train_rows, split)
    for found in images_of(root, options.file, wanted):
        if isinstance(found, Rejected):
            yield found
            continue
        place, item = found
        try:
            key = identifier(item, "cocoid")
            image = options.image_path.format(folder=text(item, "filepath"), file_name=text(item, "filename"))
            attributes = objects.get(key, NONE) if options.instances else {}
            yield from caption_rows(place, key, image, sentences(item), per, attributes)
        except FieldError as error:
            yield Rejected(place, error.field, error.reason)
