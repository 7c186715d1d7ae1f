"""COCO captions in COCO's official files: `captions_train2017.json`, `captions_val2017.json` (also those of 2014).

Chen et al. 2015; https://cocodataset.org/#download; captions CC BY 4.0 (https://cocodataset.org/#termsofuse), images
under their own terms. The official test split has no captions: the validation split is used as the test split.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilot.config.base import Model
from pilot.data.readers.captions import TrainRows, caption_rows, rows_per
from pilot.data.readers.categories import NONE, largest_objects
from pilot.data.readers.files import FileImage, RelativePath, elements, read_json
from pilot.data.readers.values import FieldError, identifier, mapping, text, unique
from pilot.data.rows import Place, Rejected, Rows

WHAT = "a COCO captions file (an object with the lists `images` and `annotations`)"


class Options(Model):
    """Files and path templates of images by file name for each split, and rows per image or per caption.

    `instances`: COCO's instances files, for the labels `category` and `supercategory` of the largest object.
    """

    train: RelativePath = "coco/annotations/captions_train2017.json"
    train_image_path: FileImage = "coco/train2017/{file_name}"
    test: RelativePath = "coco/annotations/captions_val2017.json"
    test_image_path: FileImage = "coco/val2017/{file_name}"
    train_rows: TrainRows = "image"
    instances: tuple[RelativePath, ...] = ()


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield rows of the images in file order; reject images without captions and captions without an image.

    Raises:
        UserError: a file is missing or not in the format.
    """
    yield from unique(_rows(options, root, split), "id")


def _rows(options: Options, root: Path, split: str) -> Rows:
    file = options.train if split == "train" else options.test
    document = read_json(root, file, WHAT)
    images = elements(document, "images", root / file, WHAT)
    known = _known(images)
    captions: dict[str, list[str]] = {}
    for index, item in enumerate(elements(document, "annotations", root / file, WHAT)):
        try:
            key = identifier(mapping(item), "image_id")
            if key not in known:
                raise FieldError("image_id", f"expected the id of an image of this file, got {key}")
            caption = text(item, "caption")
            captions.setdefault(key, []).append(caption)
        except FieldError as error:
            yield Rejected(Place(f"{file}#annotations", index), error.field, error.reason)
    objects = largest_objects(root, options.instances)
    for index, item in enumerate(images):
        place = Place(f"{file}#images", index)
        try:
            yield from _image(options, split, place, mapping(item), captions, objects)
        except FieldError as error:
            yield Rejected(place, error.field, error.reason)


def _known(images: Any) -> set[str]:
    known = set()
    for item in images:
        try:
            known.add(identifier(mapping(item), "id"))
        except FieldError:
            continue  # rejected when the images are read
    return known


def _image(
    options: Options,
    split: str,
    place: Place,
    item: Mapping[str, Any],
    captions: Mapping[str, list[str]],
    objects: Mapping[str, dict[str, str]],
) -> Rows:
    key = identifier(item, "id")
    if key not in captions:
        raise FieldError("id", f"no caption of image {key}")
    images = options.train_image_path if split == "train" else options.test_image_path
    attributes = objects.get(key, NONE) if options.instances else {}
    image = images.format(file_name=text(item, "file_name"))
    yield from caption_rows(place, key, image, captions[key], rows_per(options.train_rows, split), attributes)
