"""The hub: tables with its real columns, as local parquet files, give the same examples as the official files."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Image, List, Value

from pilot.data.readers import (
    aokvqa,
    coco_karpathy,
    flickr30k,
    gqa,
    ocr_vqa,
    okvqa,
    refcoco,
    textcaps,
    textvqa,
    vqa_official,
)
from pilot.data.readers.hub import reader as hub
from pilot.data.readers.hub.sets import ImageTable
from pilot.data.rows import Place, RawBox, Rejected, Row, Rows

from . import official_files as files
from .hub_files import ANSWERS, TEXT, TEXTS, image, local, png, table


def examples(rows: Rows) -> list[tuple[str, str, tuple[str, ...], RawBox | None, dict[str, str]]]:
    """What the model sees and is scored by, without image, place and id."""
    found = files.kept(rows)
    assert all(isinstance(row, Row) for row in found), found
    return [
        (row.instruction, row.answer, row.references, row.box, dict(row.attributes))
        for row in found
        if isinstance(row, Row)
    ]


def test_vqav2(tmp_path: Path) -> None:
    features = {
        "question_type": TEXT,
        "multiple_choice_answer": TEXT,
        "answers": ANSWERS,
        "image_id": Value("int64"),
        "answer_type": TEXT,
        "question_id": Value("int64"),
        "question": TEXT,
        "image": Image(),
    }
    rows = [
        {
            "question_type": kind,
            "multiple_choice_answer": best,
            "answers": [
                {"answer": one, "answer_confidence": "yes", "answer_id": n} for n, one in enumerate(answers, start=1)
            ],
            "image_id": picture,
            "answer_type": answer_type,
            "question_id": key,
            "question": text,
            "image": image(shade),
        }
        for shade, (text, key, picture, best, answers, kind, answer_type) in enumerate(files.VQA_ROWS)
    ]
    table(tmp_path / "test.parquet", features, *rows)
    found = list(hub.read(local("vqa", "lmms-lab/VQAv2"), tmp_path, "test"))
    files.vqa(tmp_path, "vqav2/v2_OpenEnded_mscoco_val2014_questions.json", "vqav2/v2_mscoco_val2014_annotations.json")
    official = vqa_official.read(vqa_official.Options(), tmp_path, "test")
    assert examples(iter(found)) == examples(official)
    first, second = found
    assert isinstance(first, Row) and isinstance(second, Row)
    assert (first.place, first.id, first.image) == (Place("test.parquet", 0), "458752000", png(0))
    assert (second.place, second.id, second.image) == (Place("test.parquet", 1), "458752003", png(1))


def test_okvqa(tmp_path: Path) -> None:
    names = ("question_id", "question", "question_type", "answer_type")
    features = dict.fromkeys(names, TEXT) | {"answers": TEXTS, "image": Image()}
    rows = [
        {
            "question_id": str(key),
            "image": image(),
            "question": text,
            "answers": answers,
            "question_type": kind,
            "answer_type": answer_type,
        }
        for text, key, _, _, answers, kind, answer_type in files.VQA_ROWS
    ]
    table(tmp_path / "test.parquet", features, *rows)
    files.vqa(
        tmp_path,
        "okvqa/OpenEnded_mscoco_val2014_questions.json",
        "okvqa/mscoco_val2014_annotations.json",
        chosen=False,
    )
    official = okvqa.read(okvqa.Options(), tmp_path, "test")
    assert examples(hub.read(local("vqa", "lmms-lab/OK-VQA"), tmp_path, "test")) == examples(official)


@pytest.mark.parametrize("written", [repr, list])
def test_aokvqa_with_answers_as_text_or_list(tmp_path: Path, written: Any) -> None:
    features = {
        "image": Image(),
        "question_id": TEXT,
        "question": TEXT,
        "choices": TEXTS,
        "correct_choice_idx": Value("int8"),
        "direct_answers": TEXT if written is repr else TEXTS,
        "difficult_direct_answer": Value("bool"),
        "rationales": TEXTS,
    }
    values = {name: value for name, value in files.AOKVQA[0].items() if name in features}
    values |= {"image": image(), "direct_answers": written(values["direct_answers"])}
    table(tmp_path / "train.parquet", features, values)
    files.write(tmp_path, "aokvqa/aokvqa_v1p0_train.json", files.AOKVQA)
    official = aokvqa.read(aokvqa.Options(), tmp_path, "train")
    assert examples(hub.read(local("vqa", "HuggingFaceM4/A-OKVQA"), tmp_path, "train")) == examples(official)


def test_textvqa(tmp_path: Path) -> None:
    features = {
        "image_id": TEXT,
        "question_id": Value("int32"),
        "question": TEXT,
        "question_tokens": TEXTS,
        "image": Image(),
        "answers": TEXTS,
        "image_classes": TEXTS,
        "set_name": TEXT,
        "ocr_tokens": TEXTS,
    }
    values = {name: value for name, value in files.TEXTVQA[0].items() if name in features}
    table(tmp_path / "train.parquet", features, values | {"image": image(), "ocr_tokens": ["NOKIA"]})
    files.write(tmp_path, "textvqa/TextVQA_0.5.1_train.json", {"data": files.TEXTVQA})
    (expected,) = examples(textvqa.read(textvqa.Options(), tmp_path, "train"))
    (found,) = examples(hub.read(local("vqa", "lmms-lab/textvqa"), tmp_path, "train"))
    assert found[:-1] == expected[:-1] and found[-1] == {}  # the official reader's label is a class of the image


GQA_FEATURES = {
    "id": TEXT,
    "imageId": TEXT,
    "question": TEXT,
    "answer": TEXT,
    "fullAnswer": TEXT,
    "isBalanced": Value("bool"),
    "types": {"detailed": TEXT, "semantic": TEXT, "structural": TEXT},
}
GQA_OPTIONS = local("vqa", "lmms-lab/GQA", image_table=ImageTable(train_files=("images/*.parquet",)))


def gqa_row(**changes: Any) -> dict[str, Any]:
    """The row of `official_files.GQA` in the hub's table."""
    values = {name: value for name, value in files.GQA["07333408"].items() if name in GQA_FEATURES}
    return {"id": "07333408"} | values | changes


def test_gqa_with_images_in_a_table_of_their_own(tmp_path: Path) -> None:
    others = [gqa_row(id="2", imageId="7"), gqa_row(id="3"), gqa_row(id="4", imageId=None)]
    table(tmp_path / "train.parquet", GQA_FEATURES, gqa_row(), *others)
    pictures = [{"id": "99", "image": image(1)}, {"id": "2375429", "image": image(2)}, {"id": "8", "image": None}]
    table(tmp_path / "images/0.parquet", {"id": TEXT, "image": Image()}, *pictures)
    found = list(hub.read(GQA_OPTIONS, tmp_path, "train"))
    files.write(tmp_path, "gqa/train_balanced_questions.json", files.GQA)
    official = examples(gqa.read(gqa.Options(), tmp_path, "train"))
    rows = [row for row in found if isinstance(row, Row)]
    assert examples(iter(rows)) == official * 2
    assert [(row.id, row.image) for row in rows] == [("07333408", png(2)), ("3", png(2))]
    assert [(row.place, row.field) for row in found if isinstance(row, Rejected)] == [
        (Place("train.parquet", 3), "imageId"),
        (Place("images/0.parquet", 2), "image"),
        (Place("train.parquet", 1), "imageId"),  # image 7 is not there
    ]


def test_ocr_vqa(tmp_path: Path) -> None:
    book = files.OCR_VQA["761183272"]
    names = ("image_id", "title", "authorName", "genre", "image_url", "set_name")
    features = {"image": Image(), "questions": TEXTS, "answers": TEXTS} | dict.fromkeys(names, TEXT)
    values = {name: book.get(name) for name in features} | {"image": image(), "image_id": "761183272"}
    table(tmp_path / "train.parquet", features, values, values | {"image_id": "x", "answers": ["one"]})
    files.write(tmp_path, "ocr-vqa/dataset.json", files.OCR_VQA)
    *found, last = hub.read(local("vqa", "howard-hou/OCR-VQA"), tmp_path, "train")
    assert examples(iter(found)) == examples(ocr_vqa.read(ocr_vqa.Options(), tmp_path, "train"))
    assert last == Rejected(
        Place("train.parquet", 1), "answers", "expected 2 answers, one per question, got a list of 1"
    )


def test_coco_captions(tmp_path: Path) -> None:
    features = {"question_id": TEXT, "image": Image(), "question": TEXT, "answer": TEXTS, "id": Value("int64")}
    values = {
        "question_id": "COCO_val2014_000000391895.jpg",
        "image": image(),
        "question": "?",
        "answer": files.CAPTIONS,
    }
    table(tmp_path / "test.parquet", features, values | {"id": 5})
    (found,) = examples(hub.read(local("caption", "lmms-lab/COCO-Caption"), tmp_path, "test"))
    files.karpathy(tmp_path)
    (official,) = examples(coco_karpathy.read(coco_karpathy.Options(), tmp_path, "test"))
    assert (found[0], found[2]) == (official[0], official[2])
    assert found[1] in official[2]  # chosen by the id, and this table has another


def test_textcaps(tmp_path: Path) -> None:
    captions = [caption.strip() for caption in files.CAPTIONS]
    features = {"image_id": TEXT, "image": Image(), "caption_str": TEXTS}
    table(
        tmp_path / "train.parquet",
        features,
        {"image_id": "87a0f24d0a7a6ae8", "image": image(), "caption_str": captions},
    )
    files.textcaps(tmp_path)
    official = examples(textcaps.read(textcaps.Options(), tmp_path, "train"))
    assert examples(hub.read(local("caption", "lmms-lab/TextCaps"), tmp_path, "train")) == official


def test_flickr30k_with_its_splits_in_a_column(tmp_path: Path) -> None:
    names = ("split", "img_id", "filename")
    features = {"image": Image(), "caption": TEXTS, "sentids": TEXTS} | dict.fromkeys(names, TEXT)
    values = {"image": image(), "caption": files.CAPTIONS, "filename": "1000092795.jpg", "split": "train"}
    others = [values | {"filename": "2.jpg", "split": "test"}, values | {"filename": "3.jpg", "split": None}]
    table(tmp_path / "train.parquet", features, values, *others)
    *found, last = hub.read(local("caption", "nlphuji/flickr30k"), tmp_path, "train")
    files.karpathy(tmp_path)
    assert examples(iter(found)) == examples(flickr30k.read(flickr30k.Options(), tmp_path, "train"))
    assert isinstance(last, Rejected) and (last.place, last.field) == (Place("train.parquet", 2), "split")


@pytest.mark.parametrize("dataset", ["lmms-lab/RefCOCO", "lmms-lab/RefCOCOplus", "lmms-lab/RefCOCOg"])
def test_refcoco(tmp_path: Path, dataset: str) -> None:
    features = {
        "question_id": TEXT,
        "image": Image(),
        "question": TEXT,
        "answer": TEXTS,
        "segmentation": List(Value("float32")),
        "bbox": List(Value("float32")),
        "iscrowd": Value("int8"),
        "file_name": TEXT,
    }
    values = {
        "image": image(),
        "answer": ["the lady", "lady with blue", "caf\u00e9"],
        "bbox": [103.93, 299.99, 134.22, 177.42],
    }
    table(tmp_path / "train.parquet", features, values)
    files.refcoco(tmp_path)
    found = examples(hub.read(local("ground", dataset), tmp_path, "train"))
    official = examples(refcoco.read(refcoco.Options(), tmp_path, "train"))
    assert [one[:3] for one in found] == [one[:3] for one in official]
    for one, other in zip(found, official, strict=True):
        assert one[3] is not None and other[3] is not None and one[3].form == other[3].form
        assert one[3].values == pytest.approx(other[3].values, abs=1e-4)  # the hub stores 32-bit numbers
