"""VQAv2 (and every data set in its format): a file of questions and a file of annotations.

Goyal et al., CVPR 2017; https://visualqa.org/download.html; annotations CC BY 4.0, COCO images under their own terms.
Training answer: `multiple_choice_answer`, else the most frequent of the human answers; references: all of them.
The official test split has no public answers: the official validation split is used as the test split.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilot.config.base import Model
from pilot.data.prompts import question
from pilot.data.readers.files import NumberedImage, RelativePath, elements, read_json
from pilot.data.readers.values import (
    FieldError,
    identifier,
    integer,
    labels,
    make_row,
    mapping,
    most_frequent,
    plain_text,
    sequence,
    text,
    unique,
)
from pilot.data.rows import Place, Rejected, Row, Rows

QUESTIONS = "a VQA questions file (an object with the list `questions`)"
ANNOTATIONS = "a VQA annotations file (an object with the list `annotations`)"


class Options(Model):
    """Files and path templates of images by number for each split."""

    train_questions: RelativePath = "vqav2/v2_OpenEnded_mscoco_train2014_questions.json"
    train_annotations: RelativePath = "vqav2/v2_mscoco_train2014_annotations.json"
    train_image_path: NumberedImage = "coco/train2014/COCO_train2014_{image_id:012d}.jpg"
    test_questions: RelativePath = "vqav2/v2_OpenEnded_mscoco_val2014_questions.json"
    test_annotations: RelativePath = "vqav2/v2_mscoco_val2014_annotations.json"
    test_image_path: NumberedImage = "coco/val2014/COCO_val2014_{image_id:012d}.jpg"


def read(options: Options, root: Path, split: str) -> Rows:
    """Yield questions with their answers, in the questions' order; then reject annotations without a question.

    Raises:
        UserError: a file is missing or not in the format.
    """
    files = options.model_dump()
    names = {kind: files[f"{split}_{kind}"] for kind in ("questions", "annotations", "image_path")}
    yield from unique(_joined(root, names), "question_id")


def human_answers(value: Any, field: str = "answers") -> tuple[str, ...]:
    """Return the texts of a list of answers, each a text or an object with the field `answer`.

    Raises:
        FieldError: not a list, an empty list, or an element that is neither.
    """
    found = sequence(value, field)
    if not found:
        raise FieldError(field, "expected at least one answer, got a list of 0")
    return tuple(
        plain_text(answer["answer"] if isinstance(answer, Mapping) and "answer" in answer else answer, f"{field}.{n}")
        for n, answer in enumerate(found)
    )


def _joined(root: Path, names: Mapping[str, str]) -> Rows:
    annotations: dict[str, Any] = {}
    document = read_json(root, names["annotations"], ANNOTATIONS)
    for index, annotation in enumerate(elements(document, "annotations", root / names["annotations"], ANNOTATIONS)):
        try:
            key = identifier(mapping(annotation), "question_id")
            if key in annotations:
                raise FieldError("question_id", f"expected one annotation per question, {key} occurred before")
            annotations[key] = annotation
        except FieldError as error:
            yield Rejected(Place(names["annotations"], index), error.field, error.reason)
    asked: set[str] = set()
    document = read_json(root, names["questions"], QUESTIONS)
    for index, item in enumerate(elements(document, "questions", root / names["questions"], QUESTIONS)):
        yield make_row(_row, Place(names["questions"], index), item, annotations, names, asked)
    for key in annotations:
        if key not in asked:
            yield Rejected(
                Place(names["annotations"], key), "question_id", f"no question {key} in {names['questions']}"
            )


def _row(
    place: Place, item: Mapping[str, Any], annotations: Mapping[str, Any], names: Mapping[str, str], asked: set[str]
) -> Row:
    key = identifier(item, "question_id")
    asked.add(key)
    if key not in annotations:
        raise FieldError("question_id", f"no annotation of question {key} in {names['annotations']}")
    annotation = annotations[key]
    image = integer(item, "image_id")
    if (other := integer(annotation, "image_id")) != image:
        raise FieldError("image_id", f"expected {image}, as in the question, got {other} in the annotation")
    references = human_answers(annotation.get("answers"))
    chosen = annotation.get("multiple_choice_answer")
    return Row(
        place=place,
        id=key,
        image=names["image_path"].format(image_id=image),
        instruction=question(text(item, "question")),
        answer=most_frequent(references) if chosen is None else text(annotation, "multiple_choice_answer"),
        references=references,
        attributes=labels(annotation, "question_type", "answer_type"),
    )
