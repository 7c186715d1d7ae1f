"""Caption data sets: rows of files in the official formats, against rows written by hand."""

import json
from pathlib import Path

import pytest

from pilot.data.readers import coco_2017, coco_karpathy, flickr30k, textcaps
from pilot.data.rows import Place, Rejected, Row
from pilot.errors import UserError

from . import official_files as files
from .official_files import kept

CAPTION = "Provide a one-sentence caption for the provided image."
REFERENCES = (
    "A man with a red helmet on a small moped on a dirt road.",
    "Man riding a motor bike.",
    "A man on a bike.",
)
COCO = "karpathy/dataset_coco.json"


def test_karpathy_train_takes_train_and_restval(tmp_path: Path) -> None:
    files.karpathy(tmp_path)
    found = kept(coco_karpathy.read(coco_karpathy.Options(), tmp_path, "train"))
    # the answers: seed_for("caption", "391896") % 3 and seed_for("caption", "391897") % 3 are 1
    assert found == [
        Row(Place(COCO, 1), "391896", "coco/val2014/COCO_val2014_000000391896.jpg", CAPTION, REFERENCES[1], REFERENCES),
        Row(
            Place(COCO, 2),
            "391897",
            "coco/train2014/COCO_train2014_000000391897.jpg",
            CAPTION,
            REFERENCES[1],
            REFERENCES,
        ),
    ]


def test_karpathy_rows_per_caption_in_training_only(tmp_path: Path) -> None:
    files.karpathy(tmp_path)
    options = coco_karpathy.Options(train_splits=("train",), train_rows="caption")
    rows = kept(coco_karpathy.read(options, tmp_path, "train"))
    assert [(row.id, row.answer) for row in rows if isinstance(row, Row)] == [
        ("391897-0", REFERENCES[0]),
        ("391897-1", REFERENCES[1]),
        ("391897-2", REFERENCES[2]),
    ]
    assert all(isinstance(row, Row) and row.references == REFERENCES for row in rows)
    (row,) = kept(coco_karpathy.read(options, tmp_path, "test"))
    assert isinstance(row, Row) and (row.id, row.references) == ("391895", REFERENCES)


def test_karpathy_labels_of_the_largest_object(tmp_path: Path) -> None:
    files.karpathy(tmp_path)
    categories = [
        {"supercategory": "person", "id": 1, "name": "person"},
        {"supercategory": "vehicle", "id": 4, "name": "motorcycle"},
    ]
    annotations = [
        {"image_id": 391896, "area": area, "category_id": category} for area, category in ((5.5, 1), (80, 4), (7, 1))
    ]
    files.write(tmp_path, "coco/annotations/i.json", {"categories": categories, "annotations": annotations})
    options = coco_karpathy.Options(instances=("coco/annotations/i.json",))
    rows = kept(coco_karpathy.read(options, tmp_path, "train"))
    assert [row.attributes for row in rows if isinstance(row, Row)] == [
        {"category": "motorcycle", "supercategory": "vehicle"},
        {"category": "none", "supercategory": "none"},
    ]
    annotations[1]["category_id"] = 5
    files.write(tmp_path, "coco/annotations/i.json", {"categories": categories, "annotations": annotations})
    with pytest.raises(UserError, match="annotations, element 1, field category_id"):
        kept(coco_karpathy.read(options, tmp_path, "train"))


def test_karpathy_images_that_cannot_be_used_are_rejected(tmp_path: Path) -> None:
    files.karpathy(tmp_path)
    document = json.loads((tmp_path / COCO).read_text())
    good = document["images"][2]
    changes = [{"split": "dev"}, {"sentences": []}, {"sentences": [{"raw": ""}]}, {"cocoid": -1}, {"filename": 3}]
    document["images"] = [good | change for change in changes] + [good, good, 7]
    files.write(tmp_path, COCO, document)
    found = kept(coco_karpathy.read(coco_karpathy.Options(), tmp_path, "train"))
    assert [(r.place.row, r.field if isinstance(r, Rejected) else "") for r in found] == [
        (0, "split"),
        (1, "sentences"),
        (2, "raw"),
        (3, "cocoid"),
        (4, "filename"),
        (5, ""),
        (6, "cocoid"),
        (7, "(whole row)"),
    ]


def test_coco_2017_joins_captions_to_images(tmp_path: Path) -> None:
    files.coco_2017(tmp_path)
    file = "coco/annotations/captions_train2017.json"
    cake = "A woman cuts a cake."
    # seed_for("caption", "391895") % 3 is 1
    expected = [
        Row(
            Place(f"{file}#images", 0), "391895", "coco/train2017/000000391895.jpg", CAPTION, REFERENCES[1], REFERENCES
        ),
        Row(Place(f"{file}#images", 1), "522418", "coco/train2017/000000522418.jpg", CAPTION, cake, (cake,)),
    ]
    assert list(coco_2017.read(coco_2017.Options(), tmp_path, "train")) == expected
    document = json.loads((tmp_path / file).read_text())
    document["images"] += [document["images"][0] | {"id": 5}, {"id": None}]
    document["annotations"] += [{"image_id": 6, "caption": "Nobody's."}, {"image_id": 391895, "caption": "\t"}]
    files.write(tmp_path, file, document)
    found = list(coco_2017.read(coco_2017.Options(), tmp_path, "train"))
    assert [row for row in found if isinstance(row, Row)] == expected
    assert [(r.place.file.partition("#")[2], r.place.row, r.field) for r in found if isinstance(r, Rejected)] == [
        ("annotations", 4, "image_id"),
        ("annotations", 5, "caption"),
        ("images", 2, "id"),
        ("images", 3, "id"),
    ]


def test_coco_2017_image_whose_only_caption_is_blank(tmp_path: Path) -> None:
    files.coco_2017(tmp_path)
    file = "coco/annotations/captions_train2017.json"
    document = json.loads((tmp_path / file).read_text())
    document["annotations"][1]["caption"] = " "
    files.write(tmp_path, file, document)
    rejected, row, last = coco_2017.read(coco_2017.Options(), tmp_path, "train")
    assert isinstance(rejected, Rejected) and rejected.field == "caption"
    assert isinstance(row, Row) and row.id == "391895"
    assert last == Rejected(Place(f"{file}#images", 1), "id", "no caption of image 522418")


def test_textcaps_gathers_the_entries_of_an_image(tmp_path: Path) -> None:
    files.textcaps(tmp_path)
    file, image = "textcaps/TextCaps_0.1_train.json", "textvqa/train_images/87a0f24d0a7a6ae8.jpg"
    # seed_for("caption", "87a0f24d0a7a6ae8") % 3 is 0
    expected = Row(Place(file, 0), "87a0f24d0a7a6ae8", image, CAPTION, REFERENCES[0], REFERENCES)
    assert list(textcaps.read(textcaps.Options(), tmp_path, "train")) == [expected]
    document = json.loads((tmp_path / file).read_text())
    for entry in document["data"]:
        del entry["reference_strs"]
    document["data"].insert(1, document["data"][0] | {"caption_str": None})
    files.write(tmp_path, file, document)
    rejected, row = textcaps.read(textcaps.Options(), tmp_path, "train")
    assert isinstance(rejected, Rejected) and (rejected.place.row, rejected.field) == (1, "caption_str")
    assert row == expected


def flickr_row(place: Place) -> Row:
    """The image of `official_files.karpathy` in Flickr30k's files; seed_for("caption", "1000092795.jpg") % 3 is 2."""
    image = "flickr30k/flickr30k-images/1000092795.jpg"
    return Row(place, "1000092795.jpg", image, CAPTION, REFERENCES[2], REFERENCES)


def test_flickr30k_karpathy(tmp_path: Path) -> None:
    files.karpathy(tmp_path)
    expected = [flickr_row(Place("karpathy/dataset_flickr30k.json", 0))]
    assert kept(flickr30k.read(flickr30k.Options(), tmp_path, "train")) == expected
    assert kept(flickr30k.read(flickr30k.Options(), tmp_path, "test")) == []


TOKEN = flickr30k.Options(file="f/results_20130124.token", train_list="f/train.txt", test_list="f/test.txt")


def test_flickr30k_original(tmp_path: Path) -> None:
    lines = [f"1000092795.jpg#{n}\t{caption}" for n, caption in enumerate(files.CAPTIONS)]
    lines += ["2.jpg#0\tA caf\u00e9 .", "no tab", "3.jpg\tno number", "4.jpg#0\t ", "5.jpg#x\tno number"]
    data = "\n".join(lines).encode() + b"\n6.jpg#0\t\xff\n\n"
    files.write(tmp_path, "f/results_20130124.token", data)
    files.write(tmp_path, "f/train.txt", b"1000092795\r\n4\n1000092795.jpg\n")
    files.write(tmp_path, "f/test.txt", b"2.jpg")
    found = kept(flickr30k.read(TOKEN, tmp_path, "train"))
    assert [(r.place.row, r.field) for r in found[:5] if isinstance(r, Rejected)] == [
        (5, "(whole line)"),
        (6, "(whole line)"),
        (7, "caption"),
        (8, "(whole line)"),
        (9, "caption"),
    ]
    assert found[5] == flickr_row(Place("f/train.txt", 1))
    assert [(r.place, r.field) for r in found[6:] if isinstance(r, Rejected)] == [
        (Place("f/train.txt", 2), "name"),  # no usable caption
        (Place("f/train.txt", 3), "filename"),  # the same image again
    ]
    row = kept(flickr30k.read(TOKEN, tmp_path, "test"))[-1]
    assert isinstance(row, Row) and (row.id, row.references) == ("2.jpg", ("A caf\u00e9 .",))


def test_flickr30k_original_needs_lists(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Set the options train_list and test_list"):
        kept(flickr30k.read(flickr30k.Options(file="f/results_20130124.token"), tmp_path, "train"))
