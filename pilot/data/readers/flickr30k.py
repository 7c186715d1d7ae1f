"""Flickr30k: five captions per photograph, in Karpathy's file or in the original file of captions.

Young et al., TACL 2014; https://shannon.cs.illinois.edu/DenotationGraph/ (images on request, non-commercial research
and education only); split of Karpathy and Fei-Fei, CVPR 2015: `dataset_flickr30k.json` in
https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip. The original `results_20130124.token` has
lines `<file name>#<number>`, tab, caption, and no split: it is given by lists of each split's images (one name per
line, with or without .jpg, as in Flickr30k Entities' train.txt and test.txt).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pilot.config.base import Model
from pilot.data.readers.captions import TrainRows, caption_rows, rows_per
from pilot.data.readers.coco_karpathy import KarpathySplit, image_rows, sentences
from pilot.data.readers.files import GUIDE, FileImage, RelativePath, read_lines
from pilot.data.readers.values import FieldError, plain_text, text, unique
from pilot.data.rows import Place, Rejected, Rows
from pilot.errors import UserError

TOKENS = "Flickr30k's results_20130124.token (lines: file name#number, tab, caption)"
LIST = "a list of Flickr30k images (one name per line)"


class Options(Model):
    """Caption file (`.json`: Karpathy's; else the original), path template of images, splits, and rows.

    The lists are required with the original file and ignored with Karpathy's.
    """

    file: RelativePath = "karpathy/dataset_flickr30k.json"
    image_path: FileImage = "flickr30k/flickr30k-images/{file_name}"
    train_splits: tuple[KarpathySplit, ...] = ("train",)
    test_splits: tuple[KarpathySplit, ...] = ("test",)
    train_list: RelativePath | None = None
    test_list: RelativePath | None = None
    train_rows: TrainRows = "image"


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield rows of the split's images.

    Raises:
        UserError: a file is missing or not in the format, or a required list is not given.
    """
    make = _karpathy if options.file.endswith(".json") else _original
    yield from unique(make(options, root, split), "filename")


def _karpathy(options: Options, root: Path, split: str) -> Rows:
    wanted: Sequence[str] = options.train_splits if split == "train" else options.test_splits

    def make(place: Place, item: Mapping[str, Any]) -> Rows:
        key = text(item, "filename")
        image = options.image_path.format(file_name=key)
        return caption_rows(place, key, image, sentences(item), rows_per(options.train_rows, split))

    return image_rows(root, options.file, wanted, make)


def _original(options: Options, root: Path, split: str) -> Rows:
    names = options.train_list if split == "train" else options.test_list
    if names is None:
        raise UserError(
            f"{root / options.file}: the original file of captions has no split. Set the options train_list and "
            f"test_list to lists of images, or use Karpathy's dataset_flickr30k.json. {GUIDE}"
        )
    captions: dict[str, list[str]] = {}
    for number, line in read_lines(root, options.file, TOKENS):
        try:
            key, caption = _token(line)
            captions.setdefault(key, []).append(caption)
        except FieldError as error:
            yield Rejected(Place(options.file, number), error.field, error.reason)
    for number, line in read_lines(root, names, LIST):
        try:
            yield from _listed(options, Place(names, number), line, captions, split)
        except FieldError as error:
            yield Rejected(Place(names, number), error.field, error.reason)


def _listed(options: Options, place: Place, line: str, captions: Mapping[str, list[str]], split: str) -> Rows:
    name = plain_text(line, "name")
    key = name if name in captions else f"{name}.jpg"
    if key not in captions:
        raise FieldError("name", f"expected an image with a usable caption in {options.file}, got {name[:80]}")
    image = options.image_path.format(file_name=key)
    yield from caption_rows(place, key, image, captions[key], rows_per(options.train_rows, split))


def _token(line: str) -> tuple[str, str]:
    name, tab, caption = line.partition("\t")
    key, sign, number = name.rpartition("#")
    if not tab or not sign or not number.isdecimal():
        raise FieldError("(whole line)", "expected file name#number, a tab, a caption")
    return plain_text(key, "name"), plain_text(caption, "caption")
