"""A-OKVQA: a list of questions with ten direct answers and four choices.

Schwenk et al., ECCV 2022; https://github.com/allenai/aokvqa (Apache-2.0); COCO 2017 images under their own terms.
The official test split has no answers: the official validation split is used as the test split.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pilot.config.base import Model
from pilot.data.prompts import question
from pilot.data.readers.files import NumberedImage, RelativePath, elements, read_json
from pilot.data.readers.values import (
    FieldError,
    expect,
    identifier,
    integer,
    labels,
    make_rows,
    most_frequent,
    text,
    texts,
    unique,
)
from pilot.data.rows import Place, Row, Rows

WHAT = "an A-OKVQA file (a list of questions)"
LETTERS = "ABCDEFGHIJ"
LETTER = "Answer with the option's letter from the given choices directly."


class Options(Model):
    """Files and path templates of images by number for each split, and the form of the answer.

    `form`: `direct` (a word or phrase; references are the direct answers) or `choice` (a letter, as in LLaVA-1.5's
    mixture).
    """

    train: RelativePath = "aokvqa/aokvqa_v1p0_train.json"
    train_image_path: NumberedImage = "coco/train2017/{image_id:012d}.jpg"
    test: RelativePath = "aokvqa/aokvqa_v1p0_val.json"
    test_image_path: NumberedImage = "coco/val2017/{image_id:012d}.jpg"
    form: Literal["direct", "choice"] = "direct"


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield one row per question.

    Raises:
        UserError: the file is missing or not in the format.
    """
    file = options.train if split == "train" else options.test
    images = options.train_image_path if split == "train" else options.test_image_path
    items = elements(read_json(root, file, WHAT), "", root / file, WHAT)
    yield from unique(make_rows(enumerate(items), file, _row, images, options.form), "question_id")


def _row(place: Place, item: Mapping[str, Any], images: str, form: str) -> Row:
    instruction, answer, references = direct(item) if form == "direct" else choice(item)
    return Row(
        place=place,
        id=identifier(item, "question_id"),
        image=images.format(image_id=integer(item, "image_id")),
        instruction=instruction,
        answer=answer,
        references=references,
        attributes=labels(item, "difficult_direct_answer"),
    )


def direct(item: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Return instruction, answer and references of the direct form."""
    references = texts(item, "direct_answers")
    return question(text(item, "question")), most_frequent(references), references


def choice(item: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Return instruction, answer and references of the multiple-choice form."""
    choices = texts(item, "choices")
    expect(len(choices) <= len(LETTERS), "choices", f"at most {len(LETTERS)} choices", choices)
    index = integer(item, "correct_choice_idx")
    if index >= len(choices):
        raise FieldError("correct_choice_idx", f"expected a number below {len(choices)}, got {index}")
    lines = [text(item, "question")]
    lines += [f"{letter}. {option}" for letter, option in zip(LETTERS, choices, strict=False)]
    return "\n".join([*lines, LETTER]), LETTERS[index], (LETTERS[index],)
