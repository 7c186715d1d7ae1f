"""GQA: questions generated from scene graphs, one short answer each.

Hudson and Manning, CVPR 2019; https://cs.stanford.edu/people/dorarad/gqa/download.html (questions1.2.zip, images.zip);
CC BY 4.0 according to the page, images of Visual Genome. A file is an object of questions by id; `train_all_questions`
is a folder of ten such files, and an option may name a folder instead of a file. The official test split has no
answers: `testdev_balanced` is used as the test split.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilot.config.base import Model
from pilot.data.prompts import question
from pilot.data.readers.files import GUIDE, NamedImage, RelativePath, entries, read_json
from pilot.data.readers.values import labels, make_rows, mapping, text, unique
from pilot.data.rows import Place, Row, Rows
from pilot.errors import UserError

WHAT = "a GQA questions file (an object of questions by id)"
UNREAD = frozenset({"semantic", "annotations", "entailed", "equivalent", "groups"})


class Options(Model):
    """File or folder of files for each split, and path template of images by name."""

    train: RelativePath = "gqa/train_balanced_questions.json"
    test: RelativePath = "gqa/testdev_balanced_questions.json"
    image_path: NamedImage = "gqa/images/{image_id}.jpg"


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield one row per question, file by file in the order of file names.

    Raises:
        UserError: a file is missing or not in the format.
    """
    yield from unique(_all(options, root, options.train if split == "train" else options.test), "question id")


def _all(options: Options, root: Path, name: str) -> Rows:
    names = [name]
    if (root / name).is_dir():
        names = sorted(path.relative_to(root).as_posix() for path in (root / name).glob("*.json"))
        if not names:
            raise UserError(f"{root / name}: a folder without .json files. Expected {WHAT}. {GUIDE}")
    for file in names:
        questions = entries(read_json(root, file, WHAT, UNREAD), root / file, WHAT)
        yield from make_rows(questions.items(), file, _row, options.image_path)


def _row(place: Place, item: Mapping[str, Any], images: str) -> Row:
    answer = text(item, "answer")
    types = item.get("types")
    return Row(
        place=place,
        id=str(place.row),
        image=images.format(image_id=text(item, "imageId")),
        instruction=question(text(item, "question")),
        answer=answer,
        references=(answer,),
        attributes={} if types is None else labels(mapping(types, "types"), "structural", "semantic", "detailed"),
    )
