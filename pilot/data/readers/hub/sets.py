"""Known data sets on the hub and the meaning of their columns. `docs/data-sets.md` says what was checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pilot.config.base import Model
from pilot.data.rows import BoxForm


class Columns(Model):
    """Names of columns by content; None: no such column.

    Attributes:
        id: the row's id; None: the row number is used.
        image: the image feature (bytes inside the file).
        question: VQA: a text, or a list of texts that goes with a list in `answer`.
        answer: VQA: the training answer; None: the most frequent of `answers`.
        answers: VQA: human answers, as a list of texts or of objects with `answer`, or such a list written as text;
            None: `answer` is the only reference.
        captions: captioning: a text or a list of texts.
        expressions: grounding: a text or a list of texts.
        box: grounding: four numbers.
        box_form: meaning of the four numbers.
        split: column that names the split of each row within one split of the hub, or None.
        labels: columns, or `column.field`, whose values become attributes.
    """

    id: str | None = None
    image: str | None = "image"
    question: str | None = None
    answer: str | None = None
    answers: str | None = None
    captions: str | None = None
    expressions: str | None = None
    box: str | None = None
    box_form: BoxForm = "pixels_xywh"
    split: str | None = None
    labels: tuple[str, ...] = ()


class ImageTable(Model):
    """Images in a separate configuration, as in lmms-lab/GQA.

    Attributes:
        train_name: configuration with the training images; not with local files.
        test_name: configuration with the test images; not with local files.
        train_files: local parquet files with the training images.
        test_files: local parquet files with the test images.
        id: column with the image's id.
        image: column with the image.
        reference: column of the rows that holds the image's id.
    """

    train_name: str = ""
    test_name: str = ""
    train_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    id: str = "id"
    image: str = "image"
    reference: str = "imageId"


@dataclass(frozen=True)
class HubSet:
    """A data set on the hub: kind, columns, splits for training and testing (None: no such split), configurations."""

    kind: str
    columns: Columns
    train_split: str | None
    test_split: str | None
    train_name: str | None = None
    test_name: str | None = None
    image_table: ImageTable | None = None
    train_values: tuple[str, ...] = field(default=("train",))
    test_values: tuple[str, ...] = field(default=("test",))


_REFERRING = Columns(expressions="answer", box="bbox")
_COCO = Columns(id="question_id", captions="answer")

HUB_SETS: Mapping[str, HubSet] = {
    "lmms-lab/VQAv2": HubSet(
        "vqa",
        Columns(
            id="question_id",
            question="question",
            answer="multiple_choice_answer",
            answers="answers",
            labels=("question_type", "answer_type"),
        ),
        None,
        "validation",
    ),
    "lmms-lab/OK-VQA": HubSet(
        "vqa",
        Columns(id="question_id", question="question", answers="answers", labels=("question_type", "answer_type")),
        None,
        "val2014",
    ),
    "HuggingFaceM4/A-OKVQA": HubSet(
        "vqa",
        Columns(id="question_id", question="question", answers="direct_answers", labels=("difficult_direct_answer",)),
        "train",
        "validation",
    ),
    "lmms-lab/textvqa": HubSet(
        "vqa", Columns(id="question_id", question="question", answers="answers"), "train", "validation"
    ),
    "lmms-lab/GQA": HubSet(
        "vqa",
        Columns(
            id="id",
            image=None,
            question="question",
            answer="answer",
            labels=("types.structural", "types.semantic", "types.detailed"),
        ),
        "train",
        "testdev",
        "train_balanced_instructions",
        "testdev_balanced_instructions",
        ImageTable(train_name="train_balanced_images", test_name="testdev_balanced_images"),
    ),
    "howard-hou/OCR-VQA": HubSet(
        "vqa", Columns(id="image_id", question="questions", answer="answers", labels=("genre",)), "train", "test"
    ),
    "lmms-lab/COCO-Caption": HubSet("caption", _COCO, None, "val"),
    "lmms-lab/COCO-Caption2017": HubSet("caption", _COCO, None, "val"),
    "lmms-lab/TextCaps": HubSet("caption", Columns(id="image_id", captions="caption_str"), "train", "val"),
    "nlphuji/flickr30k": HubSet("caption", Columns(id="filename", captions="caption", split="split"), "test", "test"),
    "lmms-lab/RefCOCO": HubSet("ground", _REFERRING, None, "testA"),
    "lmms-lab/RefCOCOplus": HubSet("ground", _REFERRING, None, "testA"),
    "lmms-lab/RefCOCOg": HubSet("ground", _REFERRING, None, "val"),
}
"""If a test split has no public answers, the validation split is used as the test split."""

OWNERS = ("lmms-lab", "lmms-lab-encoder")
"""Owners of moved data sets: those of the first were moved to the second, under the same names and commits."""


def dataset_names(dataset: str) -> tuple[str, ...]:
    """List the names under which the hub has or had a data set, the given one first."""
    owner, _, name = dataset.partition("/")
    others = OWNERS if owner in OWNERS else ()
    return (dataset, *(f"{other}/{name}" for other in others if other != owner))


def known_set(dataset: str) -> HubSet | None:
    """Find a data set under any of its names."""
    return next((HUB_SETS[name] for name in dataset_names(dataset) if name in HUB_SETS), None)
