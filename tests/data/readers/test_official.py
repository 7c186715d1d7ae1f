"""The table of official sources, and what their options may say."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pilot.data.readers.hub import reader as hub
from pilot.data.readers.official import OFFICIAL

ROOT = Path(__file__).resolve().parents[3]


def test_the_sources() -> None:
    assert {name: source.kind for name, source in OFFICIAL.items()} == {
        "vqav2": "vqa",
        "okvqa": "vqa",
        "aokvqa": "vqa",
        "textvqa": "vqa",
        "gqa": "vqa",
        "ocr-vqa": "vqa",
        "coco-karpathy": "caption",
        "coco-2017": "caption",
        "textcaps": "caption",
        "flickr30k": "caption",
        "refcoco": "ground",
        "hub": None,
    }


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_source_is_documented(name: str) -> None:
    text = (ROOT / "docs/data-sets.md").read_text(encoding="utf-8")
    section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
    assert f"source: {name}" in section
    if name == "hub":
        assert all(f"`{dataset}`" in section for dataset in hub.HUB_SETS)
        return
    for field, value in OFFICIAL[name].options_model().model_dump().items():
        if isinstance(value, str) and "/" in value:
            assert f"`{value}`" in section, f"{field} of {name} is not in docs/data-sets.md"


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.json", "a/../../x.json", "", "C:\\x.json", "a\0b"])
@pytest.mark.parametrize(
    ("source", "field"), [("vqav2", "train_questions"), ("gqa", "train"), ("flickr30k", "test_list")]
)
def test_files_stand_below_the_root(source: str, field: str, path: str) -> None:
    with pytest.raises(ValidationError, match="expected a path"):
        OFFICIAL[source].options_model(**{field: path})


@pytest.mark.parametrize(
    ("source", "field", "pattern"),
    [
        ("vqav2", "train_image_path", "train2014/x.jpg"),
        ("vqav2", "train_image_path", "{}"),
        ("vqav2", "train_image_path", "{0}"),
        ("vqav2", "train_image_path", "{image_id"),
        ("vqav2", "train_image_path", "{image_id.__class__}"),
        ("vqav2", "train_image_path", "{image_id[0]}"),
        ("vqav2", "train_image_path", "{image_id!r}"),
        ("vqav2", "train_image_path", "{image_id:>9999999999}"),
        ("vqav2", "train_image_path", "{image_id:{image_id}}"),
        ("vqav2", "train_image_path", "/data/{image_id}.jpg"),
        ("vqav2", "train_image_path", "../{image_id}.jpg"),
        ("gqa", "image_path", "{image_id:012d}.jpg"),
        ("coco-2017", "train_image_path", "{folder}/{file_name}"),
        ("ocr-vqa", "image_path", "{image_id}.jpg"),
    ],
)
def test_image_paths_name_the_image_and_nothing_else(source: str, field: str, pattern: str) -> None:
    with pytest.raises(ValidationError):
        OFFICIAL[source].options_model(**{field: pattern})


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("vqav2", {"questions": "x.json"}),
        ("ocr-vqa", {"train_splits": (4,)}),
        ("coco-karpathy", {"test_splits": ("testA",)}),
        ("refcoco", {"variant": "refclef"}),
    ],
)
def test_other_options_are_refused(source: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OFFICIAL[source].options_model(**options)
