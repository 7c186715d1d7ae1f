"""Coordinate frame of boxes in answers; see `pilot.config.model.Frame`.

Records hold boxes as fractions of the image. Training targets are written, and answers are parsed, in the profile's
frame. An image of w x h pixels is centred in a square of side s = max(w, h): x' = (w x + (s - w) // 2) / s, and y'
likewise; the margin is rounded down as in LLaVA's `expand2square`. The other frames are the image's own in other units.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pilot.config.model import UNITS, Frame
from pilot.data.prompts import box_answer
from pilot.data.record import InstructionRecord, RelativeBox, Size

_ROWS = 64


def to_frame(box: Sequence[float], frame: Frame, size: Size) -> RelativeBox:
    """Convert fractions of the image's sides to fractions of the frame's."""
    return _convert(box, frame, size, lambda value, length, side: (value * length + (side - length) // 2) / side)


def from_frame(box: Sequence[float], frame: Frame, size: Size) -> RelativeBox:
    """Convert fractions of the frame's sides to fractions of the image's; points in the margin are outside 0..1."""
    return _convert(box, frame, size, lambda value, length, side: (value * side - (side - length) // 2) / length)


def _convert(box: Sequence[float], frame: Frame, size: Size, edge: Callable[[float, int, int], float]) -> RelativeBox:
    x1, y1, x2, y2 = box
    width, height = size
    if frame != "padded_square" or width == height:
        return x1, y1, x2, y2
    side = max(size)
    return edge(x1, width, side), edge(y1, height, side), edge(x2, width, side), edge(y2, height, side)


def in_frame(records: Sequence[InstructionRecord], frame: Frame, path: Path) -> list[InstructionRecord]:
    """Rewrite the answers of grounding records in `frame`; read image sizes from `path` if records lack images."""
    boxed = [record for record in records if record.box is not None]
    if frame == "original" or not boxed:
        return list(records)
    known = {record.id: image_size(record.image) for record in boxed if record.image}
    sizes = known if len(known) == len(boxed) else image_sizes(path)
    return [r if r.box is None else _framed(r, r.box, frame, sizes[r.id]) for r in records]


def _framed(record: InstructionRecord, box: RelativeBox, frame: Frame, size: Size) -> InstructionRecord:
    record = replace(record, frame=frame, size=size)
    earlier = tuple(t._replace(answer=answer_in_frame(t.answer, t.box, frame, size)) for t in record.earlier)
    return replace(record, answer=answer_in_frame(record.answer, box, frame, size), earlier=earlier)


def answer_in_frame(answer: str, box: Sequence[float] | None, frame: Frame, size: Size) -> str:
    """Rewrite the answer of a box in `frame`; return answers without a box, or whose frame is the image, unchanged."""
    if box is None or frame == "original" or (frame == "padded_square" and size[0] == size[1]):
        return answer
    return box_answer(to_frame(box, frame, size), UNITS[frame])


def box_in_frame(record: InstructionRecord) -> RelativeBox | None:
    """Return a record's box as fractions of its frame."""
    if record.box is None or record.size is None:
        return record.box
    return to_frame(record.box, record.frame, record.size)


def image_size(data: bytes) -> Size:
    """Return width and height in pixels of an encoded image; read its header only."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.size


def image_sizes(path: Path) -> dict[str, Size]:
    """Read the sizes of all images of a records file in small batches; return them by record id."""
    from pyarrow import parquet

    sizes: dict[str, Size] = {}
    with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        for batch in file.iter_batches(_ROWS, columns=["id", "image"]):
            sizes |= {row["id"]: image_size(row["image"]) for row in batch.to_pylist()}
    return sizes
