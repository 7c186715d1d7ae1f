"""What a reader of files yields: rows as the file has them, or why a row cannot be used.

A reader turns one file format into `Row`s and decides nothing else: images are opened, boxes converted, rows chosen
and records written by `pilot.data.intake.intake`, the same way for every format.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

BoxForm = Literal["pixels_xyxy", "pixels_xywh", "fractions_xyxy", "fractions_xywh", "padded_square_xyxy"]
"""How four numbers mean a box.

Pixels and fractions are those of the original image; `padded_square_xyxy` are fractions of the square that LLaVA-1.5
pads the image to, centred.
"""


@dataclass(frozen=True)
class Place:
    """Where a row stands.

    Attributes:
        file: path or name as the reader was given it.
        row: line of a text file (from 1), index of an element of a JSON list (from 0), or its key.
    """

    file: str
    row: int | str


@dataclass(frozen=True)
class RawBox:
    """A box as the file says it."""

    values: tuple[float, float, float, float]
    form: BoxForm


@dataclass(frozen=True)
class Row:
    """One example before its image was looked at.

    Attributes:
        place: where it was read.
        id: unique within the source and split.
        image: reference relative to the image root, or the encoded file where the format holds images.
        instruction: complete instruction, with the line on the answer's form, without image token.
        answer: training target; empty for grounding, whose answer is written from the box.
        references: acceptable answers, for scoring; empty for grounding.
        attributes: labels for partitioning and analysis.
        box: grounding only.
        left_out: columns that are no attributes, since they hold neither text nor number.
        earlier: turns of the conversation before the instruction; a grounding answer is written from its box.
    """

    place: Place
    id: str
    image: str | bytes
    instruction: str
    answer: str
    references: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    box: RawBox | None = None
    left_out: tuple[str, ...] = ()
    earlier: tuple["RawTurn", ...] = ()


@dataclass(frozen=True)
class RawTurn:
    """An earlier question and its answer, as the file says them."""

    instruction: str
    answer: str
    box: RawBox | None = None


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used; goes to `quarantine.jsonl`."""

    place: Place
    field: str
    reason: str


@dataclass(frozen=True)
class Skipped:
    """A sound row that is none of this task's examples (another split, another kind of question, no image).

    Attributes:
        place: where it was read.
        reason: why, and the option that would take it, if there is one.
    """

    place: Place
    reason: str


Rows = Iterator[Row | Rejected | Skipped]
