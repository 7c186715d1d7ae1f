"""The frame of boxes: conversions computed by hand, and training targets written in it."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pilot.config.load import load_profile
from pilot.data.frames import box_in_frame, from_frame, image_sizes, in_frame, to_frame
from pilot.data.record import InstructionRecord, Turn, read_records, write_records
from pilot.evaluation.grounding import score, score_example

BOX = (0.25, 0.5, 0.75, 1.0)


def record(size: tuple[int, int], name: str = "g-0") -> InstructionRecord:
    """A grounding record with an image of that size."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (size[0] % 256, size[1] % 256, 7)).save(buffer, "PNG")
    answer = "[0.25, 0.50, 0.75, 0.99]"
    return InstructionRecord(name, "ground", "own", buffer.getvalue(), "Where?", answer, (answer,), {}, "test", BOX)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # 640 x 480 in 640 x 640, 80 above: y = (0.5 * 480 + 80) / 640 = 320 / 640, (480 + 80) / 640 = 560 / 640.
        ((640, 480), (0.25, 0.5, 0.75, 0.875)),
        # 480 x 640, 80 to the left: x = (120 + 80) / 640, (360 + 80) / 640.
        ((480, 640), (0.3125, 0.5, 0.6875, 1.0)),
        # 8 x 5 in 8 x 8: 3 rows to fill, 3 // 2 = 1 above, 2 below: y = (2.5 + 1) / 8, (5 + 1) / 8.
        ((8, 5), (0.25, 0.4375, 0.75, 0.75)),
        ((336, 336), BOX),
    ],
)
def test_conversions_by_hand(size: tuple[int, int], expected: tuple[float, ...]) -> None:
    assert to_frame(BOX, "padded_square", size) == expected
    assert from_frame(expected, "padded_square", size) == BOX
    assert to_frame(BOX, "original", size) == from_frame(BOX, "original", size) == BOX


def test_a_perfect_answer_is_perfect_in_its_frame_only() -> None:
    """Landscape: read in the original frame, the answer's box is 0.5..0.875 high instead of 0.5..1: 3/4 of it."""
    answer = str(list(to_frame(BOX, "padded_square", (640, 480))))
    framed = score_example(answer, to_frame(BOX, "padded_square", (640, 480)), "padded_square")
    assert framed == {"acc@0.5[padded_square]": 1.0, "mean_iou[padded_square]": 1.0, "parse_failure_rate": 0.0}
    assert score({"a": answer}, {"a": BOX})["mean_iou[original]"].value == 0.75


def test_targets_are_written_in_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    caption = replace(record((9, 3), "c-0"), task="caption", box=None)
    talk = replace(record((640, 480), "g-1"), earlier=(Turn("Where is it?", "[0.00, 0.00, 0.99, 0.99]", (0, 0, 1, 1)),))
    written = [record((480, 640)), talk, record((64, 64), "g-2"), caption]
    write_records(path, written)
    assert image_sizes(path) == {"g-0": (480, 640), "g-1": (640, 480), "g-2": (64, 64), "c-0": (9, 3)}
    for images in (True, False):  # sizes out of the records' own images, and out of the file
        read = read_records(path, images=images)
        assert in_frame(read, "original", path) == read
        tall, wide, square, other = in_frame(read, "padded_square", path)
        assert tall.answer == "[0.31, 0.50, 0.69, 0.99]" and wide.answer == "[0.25, 0.50, 0.75, 0.88]"
        assert wide.earlier[0].answer == "[0.00, 0.12, 0.99, 0.88]"  # 80 / 640 = 0.125, rounded to even
        assert square.answer == written[2].answer and other == read[3]
        assert tall.box == BOX and tall.references == written[0].references  # data stay as they are
        assert box_in_frame(tall) == (0.3125, 0.5, 0.6875, 1.0) and box_in_frame(written[0]) == BOX


def test_frames_of_the_profiles() -> None:
    frames = {name: load_profile(name).frame for name in ("embedded", "smoke", "llava", "llava-random")}
    assert frames == {
        "embedded": "original", "smoke": "original", "llava": "padded_square", "llava-random": "padded_square",
    }  # fmt: skip
    assert "box_frame" not in load_profile("embedded").model_dump()
    stated = load_profile("llava").model_copy(update={"box_frame": "original"})
    assert type(stated).model_validate(stated.model_dump()).frame == "original"
    unstated = load_profile("llava").model_copy(update={"box_frame": None})
    assert unstated.frame == "padded_square"
