"""VQA data sets: rows of files in the official formats, against rows written by hand."""

import json
from pathlib import Path

import pytest

from pilot.data.readers import aokvqa, gqa, ocr_vqa, okvqa, textvqa, vqa_official
from pilot.data.rows import Place, Rejected, Row
from pilot.errors import UserError

from . import official_files as files
from .official_files import kept

SHORT = "\nAnswer the question using a single word or phrase."
QUESTIONS = "vqav2/v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "vqav2/v2_mscoco_train2014_annotations.json"


def expected_vqa(questions: str) -> list[Row]:
    """The rows of `official_files.vqa`; \xa0 inside a text stays."""
    return [
        Row(
            Place(questions, 0),
            "458752000",
            "coco/train2014/COCO_train2014_000000458752.jpg",
            f"What is this photo taken looking through?{SHORT}",
            "net",
            ("net", "net", "net", "netting", "net", "mesh", "net", "net", "net", "net"),
            {"question_type": "what is this", "answer_type": "other"},
        ),
        Row(
            Place(questions, 1),
            "458752003",
            "coco/train2014/COCO_train2014_000000262146.jpg",
            f"What color is the\xa0cap?{SHORT}",
            "pita",
            ("pita", "bread", "pita", "pita bread", "pita", "bread", "pita", "pita", "wrap", "pita"),
            {"question_type": "what color is the", "answer_type": "other"},
        ),
    ]


def test_vqav2(tmp_path: Path) -> None:
    files.vqa(tmp_path, QUESTIONS, ANNOTATIONS)
    assert list(vqa_official.read(vqa_official.Options(), tmp_path, "train")) == expected_vqa(QUESTIONS)


def test_vqav2_takes_the_chosen_answer(tmp_path: Path) -> None:
    files.vqa(tmp_path, QUESTIONS, ANNOTATIONS)
    document = json.loads((tmp_path / ANNOTATIONS).read_text())
    document["annotations"][0]["multiple_choice_answer"] = "mesh"
    files.write(tmp_path, ANNOTATIONS, document)
    row = next(vqa_official.read(vqa_official.Options(), tmp_path, "train"))
    assert isinstance(row, Row) and row.answer == "mesh"


def test_vqav2_validation_is_our_test_split(tmp_path: Path) -> None:
    files.vqa(tmp_path, "vqav2/v2_OpenEnded_mscoco_val2014_questions.json", "vqav2/v2_mscoco_val2014_annotations.json")
    row = next(vqa_official.read(vqa_official.Options(), tmp_path, "test"))
    assert isinstance(row, Row) and row.image == "coco/val2014/COCO_val2014_000000458752.jpg"


def test_okvqa_takes_the_most_frequent_answer(tmp_path: Path) -> None:
    questions = "okvqa/OpenEnded_mscoco_train2014_questions.json"
    files.vqa(tmp_path, questions, "okvqa/mscoco_train2014_annotations.json", chosen=False)
    assert list(okvqa.read(okvqa.Options(), tmp_path, "train")) == expected_vqa(questions)


def test_questions_and_annotations_are_joined_and_none_is_lost(tmp_path: Path) -> None:
    files.vqa(tmp_path, QUESTIONS, ANNOTATIONS)
    questions, annotations = (json.loads((tmp_path / name).read_text()) for name in (QUESTIONS, ANNOTATIONS))
    asked, answered = questions["questions"], annotations["annotations"]
    asked += [asked[0], asked[1] | {"question_id": 9}, asked[1] | {"question_id": 10}, "text", {"question_id": []}]
    answered += [answered[1], answered[1] | {"question_id": 10, "image_id": 1}, answered[1] | {"question_id": 11}, None]
    files.write(tmp_path, QUESTIONS, questions)
    files.write(tmp_path, ANNOTATIONS, annotations)
    found = list(vqa_official.read(vqa_official.Options(), tmp_path, "train"))
    rows, rejected = [r for r in found if isinstance(r, Row)], [r for r in found if isinstance(r, Rejected)]
    assert rows == expected_vqa(QUESTIONS)
    assert [(r.place.file, r.place.row, r.field) for r in rejected] == [
        (ANNOTATIONS, 2, "question_id"),  # a second annotation of the question
        (ANNOTATIONS, 5, "(whole row)"),
        (QUESTIONS, 2, "question_id"),  # the same question again
        (QUESTIONS, 3, "question_id"),  # no annotation
        (QUESTIONS, 4, "image_id"),  # another image in the annotation
        (QUESTIONS, 5, "(whole row)"),
        (QUESTIONS, 6, "question_id"),
        (ANNOTATIONS, "11", "question_id"),  # no question
    ]
    assert rejected[3].reason == "no annotation of question 9 in " + ANNOTATIONS


@pytest.mark.parametrize(
    ("answers", "field"),
    [
        (None, "answers"),
        ([], "answers"),
        ([{"answer": " "}], "answers.0"),
        (["yes", {"text": "no"}], "answers.1"),
        ([{"answer": "\ud800"}], "answers.0"),
        ("yes", "answers"),
    ],
)
def test_answers_that_cannot_be_used(tmp_path: Path, answers: object, field: str) -> None:
    files.vqa(tmp_path, QUESTIONS, ANNOTATIONS)
    document = json.loads((tmp_path / ANNOTATIONS).read_text())
    document["annotations"][0]["answers"] = answers
    files.write(tmp_path, ANNOTATIONS, document)
    first = next(vqa_official.read(vqa_official.Options(), tmp_path, "train"))
    assert isinstance(first, Rejected) and (first.place, first.field) == (Place(QUESTIONS, 0), field)


AOKVQA_ROW = Row(
    Place("aokvqa/aokvqa_v1p0_train.json", 0),
    "22MexNkBPpdZGX6sxbxVBH",
    "coco/train2017/000000299207.jpg",
    f"What is the man by the bags awaiting?{SHORT}",
    "ride",
    ("ride", "ride", "bus", "taxi", "travelling", "traffic", "taxi", "cab", "cab", "ride"),
    {"difficult_direct_answer": "false"},
)


def test_aokvqa_direct(tmp_path: Path) -> None:
    files.write(tmp_path, "aokvqa/aokvqa_v1p0_train.json", files.AOKVQA)
    assert list(aokvqa.read(aokvqa.Options(), tmp_path, "train")) == [AOKVQA_ROW]


def test_aokvqa_choice(tmp_path: Path) -> None:
    files.write(tmp_path, "aokvqa/aokvqa_v1p0_val.json", files.AOKVQA)
    (row,) = aokvqa.read(aokvqa.Options(form="choice"), tmp_path, "test")
    assert isinstance(row, Row)
    assert row.instruction == (
        "What is the man by the bags awaiting?\nA. skateboarder\nB. train\nC. delivery\nD. cab\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert (row.answer, row.references, row.image) == ("D", ("D",), "coco/val2017/000000299207.jpg")


def test_aokvqa_choice_outside(tmp_path: Path) -> None:
    files.write(tmp_path, "aokvqa/aokvqa_v1p0_val.json", [files.AOKVQA[0] | {"correct_choice_idx": 4}])
    (rejected,) = aokvqa.read(aokvqa.Options(form="choice"), tmp_path, "test")
    reason = "expected a number below 4, got 4"
    assert rejected == Rejected(Place("aokvqa/aokvqa_v1p0_val.json", 0), "correct_choice_idx", reason)


def test_textvqa(tmp_path: Path) -> None:
    document = {"dataset_type": "train", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": files.TEXTVQA}
    files.write(tmp_path, "textvqa/TextVQA_0.5.1_train.json", document)
    assert list(textvqa.read(textvqa.Options(), tmp_path, "train")) == [
        Row(
            Place("textvqa/TextVQA_0.5.1_train.json", 0),
            "0",
            "textvqa/train_images/0054c91397f2fe05.jpg",
            f"what is the brand of phone?{SHORT}",
            "nokia",
            ("nokia",) * 9 + ("toshiba",),
            {"image_class": "Belt"},
        )
    ]


def gqa_row(file: str) -> Row:
    """The row of `official_files.GQA`."""
    labels = {"structural": "query", "semantic": "rel", "detailed": "relS"}
    instruction = f"What is on the white wall?{SHORT}"
    return Row(Place(file, "07333408"), "07333408", "gqa/images/2375429.jpg", instruction, "pipe", ("pipe",), labels)


def test_gqa_file(tmp_path: Path) -> None:
    files.write(tmp_path, "gqa/train_balanced_questions.json", files.GQA)
    assert list(gqa.read(gqa.Options(), tmp_path, "train")) == [gqa_row("gqa/train_balanced_questions.json")]


def test_gqa_folder(tmp_path: Path) -> None:
    files.write(tmp_path, "gqa/train_all_questions/train_all_questions_1.json", files.GQA)
    other = {"1": files.GQA["07333408"] | {"answer": "no", "types": None}}
    files.write(tmp_path, "gqa/train_all_questions/train_all_questions_0.json", other)
    found = list(gqa.read(gqa.Options(train="gqa/train_all_questions"), tmp_path, "train"))
    first, second = found
    assert isinstance(first, Row) and (first.id, first.answer, first.attributes) == ("1", "no", {})
    assert second == gqa_row("gqa/train_all_questions/train_all_questions_1.json")
    files.write(tmp_path, "gqa/train_all_questions/train_all_questions_2.json", files.GQA)
    last = list(gqa.read(gqa.Options(train="gqa/train_all_questions"), tmp_path, "train"))[2]
    assert isinstance(last, Rejected) and last.field == "question id"


def test_gqa_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "gqa/all").mkdir(parents=True)
    with pytest.raises(UserError, match="gqa/all: a folder without .json files"):
        list(gqa.read(gqa.Options(train="gqa/all"), tmp_path, "train"))


def test_ocr_vqa(tmp_path: Path) -> None:
    files.write(tmp_path, "ocr-vqa/dataset.json", files.OCR_VQA)
    place, image = Place("ocr-vqa/dataset.json", "761183272"), "ocr-vqa/images/761183272.jpg"
    labels = {"genre": "Calendars"}
    assert kept(ocr_vqa.read(ocr_vqa.Options(), tmp_path, "train")) == [
        Row(place, "761183272-0", image, f"Who wrote this book?{SHORT}", "Sandra Boynton", ("Sandra Boynton",), labels),
        Row(place, "761183272-1", image, f"Is this a pharmaceutical book?{SHORT}", "No", ("No",), labels),
    ]
    (row,) = kept(ocr_vqa.read(ocr_vqa.Options(), tmp_path, "test"))
    assert isinstance(row, Row) and row.image == "ocr-vqa/images/B00XLZZN1C.png"
    (row,) = kept(ocr_vqa.read(ocr_vqa.Options(image_path="{key}.jpg"), tmp_path, "test"))
    assert isinstance(row, Row) and row.image == "B00XLZZN1C.jpg"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"split": "1"}, "split"),
        ({"split": True}, "split"),
        ({"split": 4}, "split"),
        ({"answers": ["No"]}, "answers"),
        ({"questions": [], "answers": []}, "questions"),
        ({"imageURL": "http://[bad"}, "imageURL"),
        ({"imageURL": "http://x/y.exe"}, "imageURL"),
        ({"answers": ["No", ""]}, "answers.1"),
    ],
)
def test_ocr_vqa_books_that_cannot_be_used(tmp_path: Path, change: dict[str, object], field: str) -> None:
    files.write(tmp_path, "ocr-vqa/dataset.json", {"k": files.OCR_VQA["761183272"] | change})
    last = kept(ocr_vqa.read(ocr_vqa.Options(), tmp_path, "train"))[-1]
    assert isinstance(last, Rejected) and (last.place.row, last.field) == ("k", field)
