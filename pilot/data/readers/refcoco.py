"""RefCOCO, RefCOCO+ and RefCOCOg: phrases that refer to an object of a COCO 2014 training image, with its box.

Yu et al., ECCV 2016, and Mao et al., CVPR 2016; https://github.com/lichengunc/refer: `refcoco.zip`, `refcoco+.zip` and
`refcocog.zip` hold `instances.json` and `refs(unc).p`, `refs(google).p` or `refs(umd).p`. The tool is Apache-2.0, its
page states no licence for the annotations; COCO images have their own terms. Boxes are [x, y, width, height] in pixels.
The .p files are pickles of plain data and are not unpickled: see `pilot.data.readers.safe_pickle`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pilot.config.base import Model
from pilot.data.prompts import GROUND
from pilot.data.readers.categories import category_names
from pilot.data.readers.files import GUIDE, FileImage, elements, read_bytes, read_json
from pilot.data.readers.safe_pickle import InvalidPickle, loads
from pilot.data.readers.values import (
    FieldError,
    expect,
    identifier,
    mapping,
    numbers,
    one_of,
    rows_of_split,
    sequence,
    text,
    unique,
)
from pilot.data.rows import Place, RawBox, Rejected, Row, Rows
from pilot.errors import UserError
from pilot.io.seeding import seed_for

REFS = "a refs(...).p file of RefCOCO (a pickled list of plain dicts)"
INSTANCES = "RefCOCO's instances.json (an object with the lists `images`, `annotations` and `categories`)"
SPLITS = ("train", "val", "test", "testA", "testB")
SplitBy = Literal["unc", "google", "umd"]
RefSplit = Literal["train", "val", "test", "testA", "testB"]
DEFAULT_TEST_SPLITS: dict[tuple[str, SplitBy], tuple[RefSplit, ...]] = {
    ("refcoco", "unc"): ("testA", "testB"),
    ("refcoco+", "unc"): ("testA", "testB"),
    ("refcoco", "google"): ("test",),
    ("refcocog", "umd"): ("test",),
    ("refcocog", "google"): ("val",),
}
"""Default test splits by data set and split author; in Google's RefCOCOg only `val` has public answers."""


class Options(Model):
    """Data set, author of the split, splits for training and testing, and rows per sentence or per object.

    Attributes:
        variant: the data set; its files are in the folder of that name.
        split_by: author of the split; default `unc`, for RefCOCOg `umd`, in which no image is in two splits.
        train_splits: splits for training.
        test_splits: splits for testing; by default those of `DEFAULT_TEST_SPLITS`, such as `testA` and `testB`.
        rows: `sentence`: one row per sentence; `ref`: one per object, with the sentence at
            `seed_for("refcoco", ref_id) % number of sentences`.
        image_path: path template of images by the file name in instances.json.
    """

    variant: Literal["refcoco", "refcoco+", "refcocog"] = "refcoco"
    split_by: SplitBy | None = None
    train_splits: tuple[RefSplit, ...] = ("train",)
    test_splits: tuple[RefSplit, ...] | None = None
    rows: Literal["sentence", "ref"] = "sentence"
    image_path: FileImage = "coco/train2014/{file_name}"

    @property
    def author(self) -> SplitBy:
        """Author of the split."""
        return self.split_by or ("umd" if self.variant == "refcocog" else "unc")

    @property
    def file_names(self) -> tuple[str, str]:
        """Files to read: references and annotations."""
        return f"{self.variant}/refs({self.author}).p", f"{self.variant}/instances.json"

    def wanted(self, split: str) -> tuple[RefSplit, ...]:
        """Return the data set's splits for `train` or `test`."""
        if split == "train":
            return self.train_splits
        return self.test_splits or DEFAULT_TEST_SPLITS.get((self.variant, self.author), ("test",))


@dataclass(frozen=True)
class _Tables:
    """Lists of instances.json, by id."""

    images: Mapping[str, Any]
    annotations: Mapping[str, Any]
    categories: Mapping[str, dict[str, str]]


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield rows of the split's sentences; for either split, reject refs without a usable split.

    Raises:
        UserError: a file is missing or not in the format, or the pickle holds more than plain data.
    """
    yield from unique(_rows(options, root, split), "sent_id")


def _rows(options: Options, root: Path, split: str) -> Rows:
    file, annotations = options.file_names
    tables = _tables(root, annotations)

    def make(place: Place, ref: Mapping[str, Any]) -> Rows:
        return _ref(options, place, ref, tables)

    refs = enumerate(_refs(root, file))
    yield from rows_of_split(refs, file, lambda ref: one_of(ref, "split", SPLITS), options.wanted(split), make)


def _refs(root: Path, file: str) -> Sequence[Any]:
    try:
        refs = loads(read_bytes(root, file, REFS))
    except InvalidPickle as error:
        raise UserError(
            f"{root / file}: refused: {error}. Expected {REFS}. Download it again from its official page. {GUIDE}"
        ) from error
    return elements(refs, "", root / file, REFS)


def _tables(root: Path, file: str) -> _Tables:
    document = read_json(root, file, INSTANCES, {"segmentation"})
    path = root / file
    images, annotations = (
        dict(_by_id(elements(document, name, path, INSTANCES), f"{path}: {name}")) for name in ("images", "annotations")
    )
    return _Tables(images, annotations, category_names(document, path))


def _by_id(items: Sequence[Any], where: str) -> Iterator[tuple[str, Any]]:
    for index, item in enumerate(items):
        try:
            yield identifier(mapping(item), "id"), item
        except FieldError as error:
            raise UserError(f"{where}, element {index}, {error}. Download the file again. {GUIDE}") from error


def _ref(options: Options, place: Place, ref: Mapping[str, Any], tables: _Tables) -> Rows:
    key, box, labels, image = identifier(ref, "ref_id"), *_object(options, ref, tables)
    found = sequence(ref.get("sentences"), "sentences")
    expect(len(found) > 0, "sentences", "at least one sentence", found)
    chosen = range(len(found)) if options.rows == "sentence" else [seed_for("refcoco", key) % len(found)]
    for number in chosen:
        try:
            sentence = mapping(found[number], f"sentences.{number}")
            yield Row(
                place=place,
                id=f"{key}-{identifier(sentence, 'sent_id')}",
                image=image,
                instruction=GROUND.format(expression=text(sentence, "sent")),
                answer="",
                attributes=labels,
                box=box,
            )
        except FieldError as error:
            yield Rejected(place, f"sentences.{number}.{error.field}", error.reason)


def _object(options: Options, ref: Mapping[str, Any], tables: _Tables) -> tuple[RawBox, dict[str, str], str]:
    """Return box, labels and image of the object that a ref refers to."""
    annotation = tables.annotations.get(identifier(ref, "ann_id"))
    if annotation is None:
        raise FieldError("ann_id", "expected the id of an annotation in instances.json")
    image = tables.images.get(identifier(ref, "image_id"))
    if image is None:
        raise FieldError("image_id", "expected the id of an image in instances.json")
    if identifier(annotation, "image_id") != identifier(ref, "image_id"):
        raise FieldError("image_id", "expected the image of the annotation in instances.json")
    box = RawBox(numbers(annotation, "bbox"), "pixels_xywh")
    labels = tables.categories.get(identifier(annotation, "category_id"), {})
    return box, labels, options.image_path.format(file_name=text(image, "file_name"))
