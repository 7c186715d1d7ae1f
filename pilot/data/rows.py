"""Output of a file reader: rows as given in the file, or the reason why a row cannot be used.

A reader converts one file format to `Row`s and nothing else: images are opened, boxes converted, rows selected and
records made by `pilot.data.intake.intake`, in the same way for every format.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

BoxForm = Literal["pixels_xyxy", "pixels_xywh", "fractions_xyxy", "fractions_xywh", "padded_square_xyxy"]
"""Meaning of the four numbers of a box.

Pixels and fractions refer to the original image; `padded_square_xyxy` to fractions of the square that LLaVA-1.5 pads
the image to, centred.
"""


@dataclass(frozen=True)
class Place:
    """Location of a row.

    Attributes:
        file: path or name as given to the reader.
        row: line of a text file (from 1), index of an element of a JSON list (from 0), or its key.
    """

    file: str
    row: int | str


@dataclass(frozen=True)
class RawBox:
    """A box as given in the file."""

    values: tuple[float, float, float, float]
    form: BoxForm


@dataclass(frozen=True)
class KeptImage:
    """An encoded image that the file holds and that intake keeps on disk, by sha256."""

    sha256: str


@dataclass(frozen=True)
class Row:
    """One example, its image not yet opened.

    Attributes:
        place: location in the source.
        id: unique within the source and split.
        image: reference relative to the image root; the encoded file, or where it is kept, if the format holds images.
        instruction: complete instruction, with the answer-format line and without the image token.
        answer: training target; empty for grounding, whose answer is written from the box.
        references: acceptable answers, for scoring; empty for grounding.
        attributes: labels for partitioning and analysis.
        box: grounding only.
        left_out: columns that are not attributes, since they hold neither text nor number.
        earlier: turns of the conversation before the instruction; a grounding answer is written from its box.
    """

    place: Place
    id: str
    image: str | bytes | KeptImage
    instruction: str
    answer: str
    references: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    box: RawBox | None = None
    left_out: tuple[str, ...] = ()
    earlier: tuple["RawTurn", ...] = ()


@dataclass(frozen=True)
class RawTurn:
    """An earlier question and its answer, as given in the file."""

    instruction: str
    answer: str
    box: RawBox | None = None


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used; it is listed in `quarantine.jsonl`."""

    place: Place
    field: str
    reason: str


@dataclass(frozen=True)
class Skipped:
    """A valid row that is not an example of this task (another split, another kind of question, no image).

    Attributes:
        place: location in the source.
        reason: why it is skipped, and the option that would include it, if there is one.
    """

    place: Place
    reason: str


Rows = Iterator[Row | Rejected | Skipped]
