"""Building a scenario's data: files, equal bytes, and refusals."""

from pathlib import Path

import pytest

from pilot.config.load import load_scenario
from pilot.config.scenario import Scenario
from pilot.data.build import build_data
from pilot.data.record import read_records
from pilot.errors import UserError
from pilot.io.atomic import read_json
from pilot.io.digest import sha256_file


def quiet(task: str, done: int, total: int) -> None:
    """No progress shown."""


def small(**task: object) -> Scenario:
    """The smoke scenario with its first task alone and changed."""
    scenario = load_scenario("smoke")
    first = scenario.tasks[0].model_copy(update={"num_train": 14, "num_test": 4, **task})
    return scenario.model_copy(update={"tasks": (first,)})


def test_same_bytes_twice(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    build_data(small(), tmp_path / "a", lambda *call: calls.append(call))
    build_data(small(), tmp_path / "b", quiet)
    files = sorted(f.relative_to(tmp_path / "a") for f in (tmp_path / "a").rglob("*") if f.is_file())
    names = ["manifest.json"] + [
        f"scene-vqa/{name}" for name in ("card.json", "card.md", "contact_sheet.png", "records.parquet")
    ]
    assert [str(file) for file in files] == [f"data/{name}" for name in names]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    parquet = tmp_path / "a/data/scene-vqa/records.parquet"
    assert read_json(tmp_path / "a/data/manifest.json") == {"digests": {"scene-vqa": sha256_file(parquet)}}
    assert calls[-1] == ("scene-vqa", 18, 18) and len(read_records(parquet)) == 18
    card = read_json(tmp_path / "a/data/scene-vqa/card.json")
    assert card["splits"]["train"]["num_records"] == card["splits"]["train"]["num_images"] == 14
    assert sum(count for _, count in card["splits"]["test"]["most_frequent_answers"]) == 4
    assert "CC-BY" in card["origin"] and card["image_sizes"] == {"80x80": 18}


def test_interrupted_build_has_no_manifest(tmp_path: Path) -> None:
    build_data(small(), tmp_path, quiet)

    def interrupt(task: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_data(small(), tmp_path, interrupt)
    assert not (tmp_path / "data/manifest.json").exists()
    assert len(read_records(tmp_path / "data/scene-vqa/records.parquet")) == 18


def test_unknown_source_and_wrong_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"smoke, field tasks\.0\.source: unknown source 'coco'.*one of: aokvqa"):
        build_data(small(source="coco"), tmp_path, quiet)
    with pytest.raises(UserError, match=r"tasks\.0\.kind: source 'scene-caption' makes examples of kind 'caption'"):
        build_data(small(source="scene-caption"), tmp_path, quiet)
    assert not (tmp_path / "data").exists()


def test_too_many_official_questions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="num_test is 9674, but the official test split has 9673 questions"):
        build_data(small(source="easy-vqa", num_test=9674), tmp_path, quiet)


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder belongs")
    with pytest.raises(UserError, match="Choose another folder"):
        build_data(small(), tmp_path, quiet)
