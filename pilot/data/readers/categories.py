"""Labels of COCO images by their objects, from the `instances_*.json` files, for partitioning by content.

Lin et al., ECCV 2014; https://cocodataset.org/#download; annotations CC BY 4.0.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pilot.data.readers.files import elements, read_json
from pilot.data.readers.values import FieldError, identifier, integer, labels, mapping
from pilot.errors import UserError

WHAT = "a COCO instances file (an object with the lists `images`, `annotations` and `categories`)"
NONE = {"category": "none", "supercategory": "none"}


def category_names(document: Any, path: Path) -> dict[str, dict[str, str]]:
    """Return the labels `category` and `supercategory` by category id.

    Raises:
        UserError: the list of categories is missing or wrong.
    """
    names = {}
    for index, item in enumerate(elements(document, "categories", path, WHAT)):
        try:
            found = labels(mapping(item), "name", "supercategory")
            names[identifier(item, "id")] = {
                label: found[field] for label, field in (("category", "name"), ("supercategory", "supercategory"))
                if field in found
            }  # fmt: skip
        except FieldError as error:
            raise UserError(
                f"{path}: categories, element {index}, field {error.field}: {error.reason}. Download the file again."
            ) from error
    return names


def largest_objects(root: Path, files: Sequence[str]) -> Mapping[str, dict[str, str]]:
    """Return the labels of the object with the largest `area` by image id; omit images without objects.

    Raises:
        UserError: a file is missing or wrong.
    """
    largest: dict[str, tuple[float, dict[str, str]]] = {}
    for file in files:
        document = read_json(root, file, WHAT, {"segmentation", "bbox"})
        names = category_names(document, root / file)
        for index, item in enumerate(elements(document, "annotations", root / file, WHAT)):
            try:
                image, area = str(integer(mapping(item), "image_id")), item.get("area")
                if not isinstance(area, int | float) or not 0 <= area < 1e12:
                    raise FieldError("area", "expected a number from 0 to 10^12")
                category = names.get(identifier(item, "category_id"))
                if category is None:
                    raise FieldError("category_id", "expected the id of a category of this file")
            except FieldError as error:
                raise UserError(
                    f"{root / file}: annotations, element {index}, field {error.field}: {error.reason}. "
                    "Download the file again."
                ) from error
            if image not in largest or area > largest[image][0]:
                largest[image] = (area, category)
    return {image: category for image, (_, category) in largest.items()}
