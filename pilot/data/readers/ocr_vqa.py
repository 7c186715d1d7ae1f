"""OCR-VQA: questions about book covers.

Mishra et al., ICDAR 2019; https://ocr-vqa.github.io (`dataset.json`; images are downloaded by the authors' script from
each entry's `imageURL` and named by the entry's key). The page states no licence beyond research use. `split` is 1
(train), 2 (validation) or 3 (test), as the authors' script defines it.
"""

import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pilot.config.base import Model
from pilot.data.readers.files import RelativePath, entries, read_json, template
from pilot.data.readers.question_lists import question_pairs, question_rows
from pilot.data.readers.values import FieldError, expect, labels, plain_text, rows_of_split, text
from pilot.data.rows import Place, Rows

WHAT = "OCR-VQA's dataset.json (an object of books by key)"
EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif")
SplitNumber = Literal[1, 2, 3]


class Options(Model):
    """File, its splits (1 train, 2 validation, 3 test) for training and testing, and path template of images.

    `image_path` may contain `{key}` and `{extension}` (of `imageURL`, with its dot). LLaVA's instructions save every
    image as .jpg: use `ocr-vqa/images/{key}.jpg` for these.
    """

    file: RelativePath = "ocr-vqa/dataset.json"
    image_path: Annotated[str, template("key", "extension", texts=True)] = "ocr-vqa/images/{key}{extension}"
    train_splits: tuple[SplitNumber, ...] = (1,)
    test_splits: tuple[SplitNumber, ...] = (3,)


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield one row per question of the split's books; for either split, reject books without a usable split.

    Raises:
        UserError: the file is missing or not in the format.
    """
    books = entries(read_json(root, options.file, WHAT), root / options.file, WHAT)
    wanted = options.train_splits if split == "train" else options.test_splits

    def make(place: Place, book: Mapping[str, Any]) -> Rows:
        return _questions(place, book, options.image_path)

    yield from rows_of_split(books.items(), options.file, _split, wanted, make)


def _split(book: Mapping[str, Any]) -> int:
    number = book.get("split")
    expect(type(number) is int and number in (1, 2, 3), "split", "1, 2 or 3", number)
    return int(str(number))


def _questions(place: Place, book: Mapping[str, Any], images: str) -> Rows:
    pairs = question_pairs(book, "questions", "answers")
    key = str(place.row)
    image = images.format(key=plain_text(key, "(key)"), extension=_extension(book) if "{extension}" in images else "")
    return question_rows(place, key, image, pairs, labels(book, "genre"))


def _extension(book: Mapping[str, Any]) -> str:
    """Return the extension of the image's URL."""
    address = text(book, "imageURL")
    try:
        extension = posixpath.splitext(urlsplit(address).path)[1]
    except ValueError as error:
        raise FieldError("imageURL", f"expected a URL ({error})") from error
    expect(extension.lower() in EXTENSIONS, "imageURL", f"a URL that ends in {', '.join(EXTENSIONS)}", address)
    return extension
