"""Whatever the files hold: rows, rejected rows or one message; never a traceback, never a row that is lost."""

import copy
import json
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.data.readers import refcoco
from pilot.data.readers.official import OFFICIAL
from pilot.data.rows import Rejected, Row, Skipped
from pilot.errors import UserError

from . import official_files as files
from .python2 import pickled


@dataclass(frozen=True)
class Case:
    """A source, how its files are written, which of them is altered, and the list in it whose items become rows."""

    source: str
    write: Callable[[Path], None]
    file: str
    rows: str


def _vqa(folder: str, prefix: str) -> Callable[[Path], None]:
    names = (
        f"{folder}/{prefix}OpenEnded_mscoco_train2014_questions.json",
        f"{prefix}mscoco_train2014_annotations.json",
    )
    return lambda root: files.vqa(root, names[0], f"{folder}/{names[1]}")


def _one(name: str, document: Any) -> Callable[[Path], None]:
    return lambda root: files.write(root, name, document)


CASES = [
    Case("vqav2", _vqa("vqav2", "v2_"), "vqav2/v2_OpenEnded_mscoco_train2014_questions.json", "questions"),
    Case("vqav2", _vqa("vqav2", "v2_"), "vqav2/v2_mscoco_train2014_annotations.json", "annotations"),
    Case("okvqa", _vqa("okvqa", ""), "okvqa/mscoco_train2014_annotations.json", "annotations"),
    Case("aokvqa", _one("aokvqa/aokvqa_v1p0_train.json", files.AOKVQA), "aokvqa/aokvqa_v1p0_train.json", ""),
    Case(
        "textvqa",
        _one("textvqa/TextVQA_0.5.1_train.json", {"data": files.TEXTVQA}),
        "textvqa/TextVQA_0.5.1_train.json",
        "data",
    ),
    Case("gqa", _one("gqa/train_balanced_questions.json", files.GQA), "gqa/train_balanced_questions.json", ""),
    Case("coco-karpathy", files.karpathy, "karpathy/dataset_coco.json", "-"),
    Case("ocr-vqa", _one("ocr-vqa/dataset.json", files.OCR_VQA), "ocr-vqa/dataset.json", "-"),
    Case("coco-2017", files.coco_2017, "coco/annotations/captions_train2017.json", "images"),
    Case("textcaps", files.textcaps, "textcaps/TextCaps_0.1_train.json", "-"),
    Case("flickr30k", files.karpathy, "karpathy/dataset_flickr30k.json", "images"),
    Case("refcoco", files.refcoco, "refcoco/instances.json", "-"),
]
IDS = [f"{case.source}: {case.file}" for case in CASES]

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "../../etc/passwd", "/etc/passwd", "http://x/y.jpg", "{0}", "{image_id}", "\0", " "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _altered(document: Any, data: st.DataObject) -> Any:
    """The document with one value, at any depth, replaced, or repeated if it is an element of a list."""
    document = copy.deepcopy(document)
    place, key = [document], 0
    current: Any = place
    while isinstance(current[key], list | dict) and current[key] and data.draw(st.integers(0, 5)):
        current = current[key]
        key = data.draw(st.sampled_from(range(len(current)) if isinstance(current, list) else sorted(current)))
    if isinstance(current, list) and current is not place and data.draw(st.booleans()):
        current.append(copy.deepcopy(current[key]))
    else:
        current[key] = data.draw(VALUES)
    return place[0]


def _read(source: str, root: Path) -> list[Row | Rejected | Skipped]:
    """All rows, which must be usable; a message if a file is not."""
    official = OFFICIAL[source]
    try:
        found = list(official.read(official.options_model(), root, "train"))
    except UserError as error:
        assert str(root) in str(error) and len(str(error)) < 1500
        raise
    for one in found:
        if isinstance(one, Rejected | Skipped):
            assert isinstance(one, Skipped) or (one.field and 0 < len(one.reason) < 400)
            continue
        texts = [one.id, one.instruction, one.image, *one.references, *one.attributes.values()]
        assert all(isinstance(text, str) and text.strip() and text.encode("utf-8") for text in texts)
        assert (one.box is None) == bool(one.answer) == bool(one.references)
    names = [one.id for one in found if isinstance(one, Row)]
    assert len(set(names)) == len(names)
    return found


@pytest.mark.parametrize("case", CASES, ids=IDS)
@settings(max_examples=15)
@given(data=st.data())
def test_an_altered_document(case: Case, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        case.write(root)
        document = _altered(json.loads((root / case.file).read_bytes()), data)
        files.write(root, case.file, document)
        try:
            found = _read(case.source, root)
        except UserError:
            return
        if case.rows != "-":  # every element is a row or is rejected
            items = document[case.rows] if case.rows else document
            assert len(found) >= len(items)


@pytest.mark.parametrize("case", CASES, ids=IDS)
@settings(max_examples=8)
@given(content=st.binary(max_size=60), keep=st.integers(0, 400))
def test_truncated_and_arbitrary_files(case: Case, content: bytes, keep: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        case.write(root)
        whole = (root / case.file).read_bytes()
        for damaged in (whole[:keep], whole[:keep] + content, content):
            files.write(root, case.file, damaged)
            try:
                _read(case.source, root)
            except UserError:
                continue


@settings(max_examples=30)
@given(data=st.data())
def test_altered_refs(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files.refcoco(root)
        document = _altered(files.REFS, data)
        try:
            files.write(root, "refcoco/refs(unc).p", pickled(document))
        except (TypeError, ValueError, struct.error):
            return  # what this test's writer does not know, such as fractions
        try:
            _read("refcoco", root)
        except UserError:
            return


@settings(max_examples=15)
@given(lines=st.lists(st.binary(max_size=20) | st.sampled_from([b"1.jpg#0\tA dog .", b"1.jpg#1\tA cat ."]), max_size=6))
def test_arbitrary_lines(lines: list[bytes]) -> None:
    official = OFFICIAL["flickr30k"]
    options = official.options_model(file="t.token", train_list="l.txt")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files.write(root, "t.token", b"\n".join(lines))
        files.write(root, "l.txt", b"1\n")
        found = list(official.read(options, root, "train"))
        good = [line for line in lines if line.startswith(b"1.jpg#")]
        if good:
            assert isinstance(found[-1], Row) and len(found[-1].references) == len(good)
        filled = [piece for line in lines for piece in line.split(b"\n") if piece.strip()]
        assert len(found) >= len(filled) - len(good)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b"nul",
        b'{"a": 1, "a": 2}',
        b"[" + b"9" * 5000 + b"]",
        b"\xff\xfe",
        b"1e999999",
        b"\x80\x04N.",
    ],
)
@pytest.mark.parametrize("source", [name for name in OFFICIAL if name != "hub"])
def test_files_that_are_no_usable_json(source: str, content: bytes, tmp_path: Path) -> None:
    official = OFFICIAL[source]
    options = official.options_model()
    names = [
        value for name, value in options.model_dump().items() if isinstance(value, str) and value.endswith(".json")
    ]
    for name in [*names, "refcoco/instances.json", "refcoco/refs(unc).p"]:
        files.write(tmp_path, name, content)
    for split in ("train", "test"):
        with pytest.raises(UserError, match="[Ee]xpected") as caught:
            list(official.read(options, tmp_path, split))
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("source", [name for name in OFFICIAL if name != "hub"])
def test_missing_files_are_named(source: str, tmp_path: Path) -> None:
    official = OFFICIAL[source]
    with pytest.raises(UserError, match="no such file. Expected .* docs/data-sets.md says where to download it"):
        list(official.read(official.options_model(), tmp_path, "train"))


def test_refs_that_are_no_file(tmp_path: Path) -> None:
    files.refcoco(tmp_path)
    (tmp_path / "refcoco/refs(unc).p").unlink()
    (tmp_path / "refcoco/refs(unc).p").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        list(refcoco.read(refcoco.Options(), tmp_path, "train"))
