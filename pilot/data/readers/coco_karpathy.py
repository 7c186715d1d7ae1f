"""COCO 2014 captions in Karpathy's split: `dataset_coco.json`.

Karpathy and Fei-Fei, CVPR 2015; https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip; captions
CC BY 4.0 (https://cocodataset.org/#termsofuse), images under their own terms. 113,287 images train (`train` and
`restval`), 5,000 `val`, 5,000 `test`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pilot.config.base import Model
from pilot.data.readers.captions import TrainRows, caption_rows, rows_per
from pilot.data.readers.categories import NONE, largest_objects
from pilot.data.readers.files import FolderImage, RelativePath, elements, read_json
from pilot.data.readers.values import expect, identifier, mapping, one_of, rows_of_split, sequence, text, unique
from pilot.data.rows import Place, Rows

WHAT = "a file of Karpathy's caption_datasets.zip (an object with the list `images`)"
KarpathySplit = Literal["train", "restval", "val", "test"]
SPLITS = ("train", "restval", "val", "test")


class Options(Model):
    """File, its splits for training and testing, path template of images, and rows per image or per caption.

    `instances`: COCO's `instances_train2014.json` and `instances_val2014.json`; with them, every image gets the labels
    `category` and `supercategory` of its largest object, for partitioning.
    """

    file: RelativePath = "karpathy/dataset_coco.json"
    image_path: FolderImage = "coco/{folder}/{file_name}"
    train_splits: tuple[KarpathySplit, ...] = ("train", "restval")
    test_splits: tuple[KarpathySplit, ...] = ("test",)
    train_rows: TrainRows = "image"
    instances: tuple[RelativePath, ...] = ()


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield rows of the split's images; for either split, reject images without a usable split.

    Raises:
        UserError: a file is missing or not in the format.
    """
    yield from unique(_rows(options, root, split), "cocoid")


def image_rows(root: Path, file: str, wanted: Sequence[str], make: Callable[[Place, Mapping[str, Any]], Rows]) -> Rows:
    """Yield the rows that `make` returns for each image of the wanted splits.

    Raises:
        UserError: the file is missing or not in the format.
    """
    document = read_json(root, file, WHAT, {"tokens", "sentids"})
    images = enumerate(elements(document, "images", root / file, WHAT))
    return rows_of_split(images, file, lambda image: one_of(image, "split", SPLITS), wanted, make)


def sentences(item: Mapping[str, Any]) -> list[str]:
    """Return the captions of an image.

    Raises:
        FieldError: there are no captions, or one is not a text.
    """
    found = sequence(item.get("sentences"), "sentences")
    expect(len(found) > 0, "sentences", "at least one sentence", found)
    return [text(mapping(sentence, f"sentences.{n}"), "raw") for n, sentence in enumerate(found)]


def _rows(options: Options, root: Path, split: str) -> Rows:
    wanted = options.train_splits if split == "train" else options.test_splits
    objects, per = largest_objects(root, options.instances), rows_per(options.train_rows, split)

    def make(place: Place, item: Mapping[str, Any]) -> Rows:
        key = identifier(item, "cocoid")
        image = options.image_path.format(folder=text(item, "filepath"), file_name=text(item, "filename"))
        attributes = objects.get(key, NONE) if options.instances else {}
        return caption_rows(place, key, image, sentences(item), per, attributes)

    yield from image_rows(root, options.file, wanted, make)
