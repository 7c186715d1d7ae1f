"""Records: validation, parquet form, and what a user reads when a file is wrong."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from pilot.data.record import COLUMNS, InstructionRecord, Turn, read_records, write_records
from pilot.errors import UserError


def png(red: int) -> bytes:
    """A tiny image."""
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (red, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


GROUND = InstructionRecord(
    id="g-0",
    task="ground",
    source="scene-ground",
    image=png(1),
    instruction="Where is the dog?",
    answer="[0.10, 0.20, 0.30, 0.40]",
    references=("[0.10, 0.20, 0.30, 0.40]",),
    attributes={"family": "animal"},
    split="train",
    box=(0.1, 0.2, 0.3, 0.4),
)
CAPTION = replace(
    GROUND, id="c-0", task="caption", image=png(2), answer="A dog.", references=("A dog.", "Dog."), box=None
)


def test_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    write_records(tmp_path / "a.parquet", [GROUND, CAPTION])
    write_records(tmp_path / "b.parquet", [GROUND, CAPTION])
    assert read_records(tmp_path / "a.parquet") == [GROUND, CAPTION]
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert tuple(parquet.read_schema(tmp_path / "a.parquet").names) == COLUMNS


def test_earlier_turns_are_a_column_where_there_are_any(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    talk = replace(
        GROUND, earlier=(Turn("Where is it?", "[0.00, 0.00, 0.50, 0.50]", (0.0, 0.0, 0.5, 0.5)), Turn("A", "b"))
    )
    write_records(path, [talk, CAPTION])
    assert tuple(parquet.read_schema(path).names) == (*COLUMNS, "earlier")
    assert read_records(path) == [talk, CAPTION]
    with pytest.raises(UserError, match="field earlier: expected questions and answers that are not empty"):
        write_records(path, [replace(GROUND, earlier=(Turn("A", " "),))])


def test_records_without_their_images(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_records(path, [GROUND, CAPTION])
    bare = read_records(path, images=False)
    assert [record.image for record in bare] == [b"", b""]
    assert [record.image_sha256 for record in bare] == [GROUND.image_sha256, CAPTION.image_sha256]
    assert replace(bare[0], image=GROUND.image, known_sha256="") == GROUND
    with pytest.raises(UserError, match="field image: expected a non-empty PNG or JPEG file"):
        write_records(tmp_path / "b.parquet", bare)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"box": None}, "box"),
        ({"box": (0.1, 0.2, 1.1, 0.4)}, "box"),
        ({"box": (0.3, 0.2, 0.1, 0.4)}, "box"),
        ({"box": (float("nan"), 0.2, 0.3, 0.4)}, "box"),
        ({"task": "caption"}, "box"),
        ({"task": "segment", "box": None}, "task"),
        ({"instruction": " \n"}, "instruction"),
        ({"answer": ""}, "answer"),
        ({"references": ()}, "references"),
        ({"references": ("yes", " ")}, "references"),
        ({"split": "dev"}, "split"),
        ({"image": b""}, "image"),
    ],
)
def test_invalid_record_is_named(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    path = tmp_path / "records.parquet"
    with pytest.raises(UserError, match=rf"records\.parquet: row 1 \(id 'g-0'\), field {field}: expected .*got"):
        write_records(path, [CAPTION, replace(GROUND, **change)])
    assert not path.exists()


def test_repeated_id_and_shared_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="field id: expected unique values, 'g-0'"):
        write_records(tmp_path / "r.parquet", [GROUND, replace(GROUND, image=png(3))])
    with pytest.raises(UserError, match="1 images are in both splits"):
        write_records(tmp_path / "r.parquet", [GROUND, replace(GROUND, id="g-1", split="test")])


def test_missing_column_names_file_and_column(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    write_records(path, [GROUND])
    parquet.write_table(parquet.read_table(path).drop_columns(["answer"]), path)
    with pytest.raises(UserError, match=r"records\.parquet: column 'answer' is missing \(found: id, task"):
        read_records(path)


def test_absent_damaged_and_altered_files(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    with pytest.raises(UserError, match="no such file. Build the scenario's data first"):
        read_records(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="not a readable parquet file"):
        read_records(path)
    write_records(path, [GROUND])
    table = parquet.read_table(path)
    place = table.column_names.index("image_sha256")
    parquet.write_table(table.set_column(place, "image_sha256", pyarrow.array(["0" * 64])), path)
    with pytest.raises(UserError, match="'g-0', field image_sha256: expected the digest"):
        read_records(path)


def test_nulls_and_broken_attributes(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    write_records(path, [GROUND])
    table = parquet.read_table(path)

    def change(column: str, value: str | None) -> None:
        place, values = table.column_names.index(column), pyarrow.array([value], pyarrow.string())
        parquet.write_table(table.set_column(place, column, values), path)

    change("instruction", None)
    with pytest.raises(UserError, match="field instruction: expected a non-empty text"):
        read_records(path)
    change("attributes", "[1]")
    with pytest.raises(UserError, match="field attributes: expected a JSON object as text, got '\\[1\\]'"):
        read_records(path)
