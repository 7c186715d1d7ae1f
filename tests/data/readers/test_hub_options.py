"""The hub: what options may say, what is asked of it, and files and columns that are not as expected."""

from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
from datasets import Image, Value
from pydantic import ValidationError

from pilot.data.readers.hub import reader as hub
from pilot.data.readers.hub.reader import Options
from pilot.data.readers.hub.sets import HUB_SETS, Columns, dataset_names, known_set
from pilot.data.rows import Place, Rejected, Row
from pilot.errors import UserError

from .hub_files import TEXT, TEXTS, image, local, png, table

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_columns_of_an_unknown_data_set(tmp_path: Path) -> None:
    features = {"picture": Image(), "q": TEXT, "a": TEXT}
    table(tmp_path / "train.parquet", features, {"picture": image(), "q": "What?", "a": "This."})
    columns = Columns(image="picture", question="q", answer="a")
    (row,) = hub.read(local("vqa", "some/thing", columns=columns), tmp_path, "train")
    assert isinstance(row, Row) and (row.id, row.answer, row.references) == ("0", "This.", ("This.",))
    with pytest.raises(UserError, match="option columns: question is required for kind vqa"):
        list(hub.read(local("vqa", "some/thing"), tmp_path, "train"))
    with pytest.raises(UserError, match=r"column 'b' is missing \(found: picture, q, a\)"):
        list(
            hub.read(local("vqa", "some/thing", columns=columns.model_copy(update={"answer": "b"})), tmp_path, "train")
        )


def test_a_column_of_a_known_data_set_may_have_another_name(tmp_path: Path) -> None:
    features = {"image": Image(), "question_id": TEXT, "question": TEXT, "given": TEXTS}
    values = {"image": image(), "question_id": "5", "question": "What?", "given": ["a", "b", "b"]}
    table(tmp_path / "train.parquet", features, values)
    (row,) = hub.read(local("vqa", "lmms-lab/textvqa", columns=Columns(answers="given")), tmp_path, "train")
    assert isinstance(row, Row) and (row.id, row.answer) == ("5", "b")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lmms-lab/VQAv2: expected a task of kind vqa, got caption"):
        list(hub.read(local("caption", "lmms-lab/VQAv2"), tmp_path, "train"))


@pytest.mark.parametrize("revision", ["main", "v1.0", "0123456", COMMIT.upper(), f"{COMMIT}0", "refs/convert/parquet"])
def test_a_revision_that_is_no_commit_is_refused(revision: str) -> None:
    with pytest.raises(ValidationError, match="expected the 40 hexadecimal digits of a commit"):
        Options(kind="vqa", dataset="lmms-lab/VQAv2", revision=revision)


@pytest.mark.parametrize("files_", [{}, {"train_files": ("a",)}, {"test_files": ("a",)}])
def test_no_revision_without_files(files_: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="revision: required unless train_files and test_files are given"):
        Options(kind="vqa", dataset="lmms-lab/VQAv2", **files_)


@pytest.mark.parametrize("dataset", ["", "VQAv2", "../x", "a/b/c", "/a/b", "a/..", "https://x/y"])
def test_a_data_set_is_named_by_owner_and_name(dataset: str) -> None:
    with pytest.raises(ValidationError, match="expected owner/name"):
        Options(kind="vqa", dataset=dataset, revision=COMMIT)


@pytest.mark.parametrize("streaming", [False, True])
def test_what_the_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    features = {"image": Image(), "question_id": TEXT, "question": TEXT, "answers": TEXTS, "other": TEXT}
    values = {"image": image(), "question_id": "5", "question": "What?", "answers": ["a"], "other": "x"}
    table(tmp_path / "t.parquet", features, values)
    real, asked = datasets.load_dataset, []

    def load(*arguments: Any, **named: Any) -> Any:
        asked.append((arguments, named))
        where = {"data_files": str(tmp_path / "t.parquet"), "split": "train", "cache_dir": str(tmp_path / "cache")}
        return real("parquet", streaming=named["streaming"], **where)

    monkeypatch.setattr(datasets, "load_dataset", load)
    options = Options(kind="vqa", dataset="lmms-lab/textvqa", revision=COMMIT, streaming=streaming)
    (row,) = hub.read(options, tmp_path, "test")
    assert asked == [(("lmms-lab/textvqa", None), {"split": "validation", "revision": COMMIT, "streaming": streaming})]
    assert isinstance(row, Row) and (row.id, row.answer, row.image) == ("5", "a", png())
    assert row.place == Place(f"lmms-lab/textvqa@{COMMIT}/default/validation", 0)


@pytest.mark.parametrize("asked_for", ["lmms-lab/textvqa", "lmms-lab-encoder/textvqa"])
@pytest.mark.parametrize("there", ["lmms-lab/textvqa", "lmms-lab-encoder/textvqa"])
def test_data_sets_that_were_moved_have_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked_for: str, there: str
) -> None:
    features = {"image": Image(), "question_id": TEXT, "question": TEXT, "answers": TEXTS}
    values = {"image": image(), "question_id": "5", "question": "What?", "answers": ["a"]}
    table(tmp_path / "t.parquet", features, values)
    real = datasets.load_dataset

    def load(name: str, *_: Any, **named: Any) -> Any:
        if name != there:
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub")
        return real("parquet", data_files=str(tmp_path / "t.parquet"), split="train", cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    (row,) = hub.read(Options(kind="vqa", dataset=asked_for, revision=COMMIT), tmp_path, "test")
    assert row.place == Place(f"{there}@{COMMIT}/default/validation", 0)  # says which it was
    said = [] if asked_for == there else [f"data set {asked_for} was read as {there}"]
    assert [record.message for record in caplog.records] == said


def test_every_moved_set_is_known_under_both_names() -> None:
    moved = [name for name in HUB_SETS if name.startswith("lmms-lab/")]
    assert len(moved) == 10
    for name in moved:
        assert known_set(name.replace("lmms-lab/", "lmms-lab-encoder/")) is known_set(name) is HUB_SETS[name]
    assert dataset_names("nlphuji/flickr30k") == ("nlphuji/flickr30k",) and known_set("a/b") is None


def test_without_network_the_message_says_what_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the variable is read at the first import
    options = Options(kind="vqa", dataset="lmms-lab/textvqa", revision=COMMIT)
    with pytest.raises(UserError) as caught:
        list(hub.read(options, tmp_path, "train"))
    assert f"hf download lmms-lab/textvqa --repo-type dataset --revision {COMMIT}" in str(caught.value)
    assert "train_files" in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_split_that_the_hub_does_not_have(tmp_path: Path) -> None:
    options = Options(kind="vqa", dataset="lmms-lab/VQAv2", revision=COMMIT)
    with pytest.raises(UserError, match="no known split for train"):
        list(hub.read(options, tmp_path, "train"))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"text"])
def test_a_file_that_is_not_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.parquet").write_bytes(content)
    with pytest.raises(UserError, match="train.parquet: not a readable parquet file"):
        list(hub.read(local("vqa", "lmms-lab/textvqa"), tmp_path, "train"))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train.parquet: no such parquet file of lmms-lab/textvqa"):
        list(hub.read(local("vqa", "lmms-lab/textvqa"), tmp_path, "train"))


@pytest.mark.parametrize(
    "value", ["[" * 5000, "['a'", "__import__('os').system('touch canary')", "[1]", "x" * 20_001, "{}", "'a'"]
)
def test_answers_written_as_text_that_are_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.chdir(tmp_path)
    features = {"image": Image(), "question_id": TEXT, "question": TEXT, "direct_answers": TEXT}
    features |= {"difficult_direct_answer": Value("bool")}
    values = {"image": image(), "question_id": "5", "question": "What?", "direct_answers": value}
    table(tmp_path / "train.parquet", features, values)
    (row,) = hub.read(local("vqa", "HuggingFaceM4/A-OKVQA"), tmp_path, "train")
    assert isinstance(row, Rejected) and row.field.startswith("direct_answers")
    assert not (tmp_path / "canary").exists()


def test_every_known_data_set_has_the_columns_its_kind_needs() -> None:
    for known in HUB_SETS.values():
        for group in hub.NEEDED[known.kind]:
            assert any(getattr(known.columns, name) for name in group)
