"""RefCOCO: rows of its pickles and instances, against rows written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from pilot.data.readers import refcoco
from pilot.data.rows import Place, RawBox, Rejected, Row, Skipped
from pilot.errors import UserError

from . import official_files as files
from .official_files import kept

LADY = RawBox((103.93, 299.99, 134.22, 177.42), "pixels_xywh")
MAN = RawBox((0.0, 10.0, 20.5, 30.0), "pixels_xywh")
IMAGE = "coco/train2014/COCO_train2014_000000581857.jpg"
PERSON = {"category": "person", "supercategory": "person"}


def row(index: int, key: str, expression: str, box: RawBox, file: str = "refcoco/refs(unc).p") -> Row:
    """A row of `official_files.refcoco`."""
    instruction = f"Please provide the bounding box coordinate of the region this sentence describes: {expression}."
    return Row(Place(file, index), key, IMAGE, instruction, "", (), PERSON, box)


def test_a_row_per_sentence(tmp_path: Path) -> None:
    files.refcoco(tmp_path)
    assert kept(refcoco.read(refcoco.Options(), tmp_path, "train")) == [
        row(0, "0-0", "the lady", LADY),
        row(0, "0-1", "lady with blue", LADY),
        row(0, "0-2", "caf\u00e9", LADY),
    ]
    assert kept(refcoco.read(refcoco.Options(), tmp_path, "test")) == [row(1, "1-3", "man", MAN)]


def test_a_row_per_object(tmp_path: Path) -> None:
    files.refcoco(tmp_path)
    # seed_for("refcoco", "0") % 3 is 2
    assert kept(refcoco.read(refcoco.Options(rows="ref"), tmp_path, "train")) == [row(0, "0-2", "caf\u00e9", LADY)]


@pytest.mark.parametrize(
    ("variant", "split_by", "author", "splits"),
    [
        ("refcoco", None, "unc", ("testA", "testB")),
        ("refcoco+", None, "unc", ("testA", "testB")),
        ("refcocog", None, "umd", ("test",)),
        ("refcocog", "google", "google", ("val",)),
        ("refcoco", "google", "google", ("test",)),
    ],
)
def test_the_usual_test_splits(tmp_path: Path, variant: Any, split_by: Any, author: str, splits: tuple[str]) -> None:
    options = refcoco.Options(variant=variant, split_by=split_by)
    assert options.wanted("test") == splits
    files.refcoco(tmp_path, variant, author, [files.REFS[1] | {"split": splits[0]}])
    (found,) = refcoco.read(options, tmp_path, "test")
    assert found == row(0, "1-3", "man", MAN, f"{variant}/refs({author}).p")


def test_splits_may_be_chosen(tmp_path: Path) -> None:
    files.refcoco(tmp_path, refs=[files.REFS[1] | {"split": "val"}])
    skipped = list(refcoco.read(refcoco.Options(test_splits=("testB",)), tmp_path, "test"))
    assert skipped == [Skipped(Place("refcoco/refs(unc).p", 0), "split val")]
    (found,) = refcoco.read(refcoco.Options(test_splits=("val",)), tmp_path, "test")
    assert isinstance(found, Row)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"split": "testC"}, "split"),
        ({"ann_id": 5}, "ann_id"),
        ({"image_id": 5}, "image_id"),
        ({"ref_id": None}, "ref_id"),
        ({"sentences": []}, "sentences"),
        ({"sentences": [{"sent_id": 1, "sent": ""}]}, "sentences.0.sent"),
        ({"sentences": ["the lady"]}, "sentences.0.sentences.0"),
        ({"sentences": [{"sent": "lady"}]}, "sentences.0.sent_id"),
    ],
)
def test_refs_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    change = {name: value for name, value in change.items() if value is not None}
    ref = {name: value for name, value in files.REFS[0].items() if name != field or name in change}
    files.refcoco(tmp_path, refs=[ref | change])
    (found,) = refcoco.read(refcoco.Options(), tmp_path, "train")
    assert isinstance(found, Rejected) and found.field == field


@pytest.mark.parametrize(
    "box", [None, [1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, True], [1, 2, 3, float("nan")], [1e300] * 4]
)
def test_boxes_that_cannot_be_used(tmp_path: Path, box: Any) -> None:
    files.refcoco(tmp_path)
    document = json.loads((tmp_path / "refcoco/instances.json").read_text())
    document["annotations"][1]["bbox"] = box
    files.write(tmp_path, "refcoco/instances.json", document)
    (found,) = kept(refcoco.read(refcoco.Options(), tmp_path, "test"))
    assert isinstance(found, Rejected) and found.field.startswith("bbox")


def test_the_same_sentence_twice(tmp_path: Path) -> None:
    files.refcoco(tmp_path, refs=[files.REFS[1], files.REFS[1]])
    first, second = refcoco.read(refcoco.Options(), tmp_path, "test")
    assert isinstance(first, Row) and isinstance(second, Rejected) and second.field == "sent_id"


def test_a_pickle_that_runs_something_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.refcoco(tmp_path)
    files.write(tmp_path, "refcoco/refs(unc).p", b"cos\nsystem\n(S'touch canary'\ntR.")
    with pytest.raises(UserError, match=r"refs\(unc\).p: refused: opcode GLOBAL at byte 0"):
        kept(refcoco.read(refcoco.Options(), tmp_path, "train"))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("refs(unc).p", b"}.", "expected a list: a refs"),
        ("instances.json", b"[]", "expected a list in field 'images'"),
        ("instances.json", b'{"images": [{}], "annotations": [], "categories": []}', "images, element 0, id: expected"),
        ("instances.json", b'{"images": [], "annotations": [], "categories": [3]}', "categories, element 0"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    files.refcoco(tmp_path)
    files.write(tmp_path, f"refcoco/{name}", content)
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        kept(refcoco.read(refcoco.Options(), tmp_path, "train"))
