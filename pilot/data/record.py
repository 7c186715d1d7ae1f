"""The record that all sources make and all later stages read, and its parquet format."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pilot.config.model import Frame
from pilot.data.tables import check_columns, iterate_rows, write_table
from pilot.errors import UserError
from pilot.io.digest import sha256_bytes

if TYPE_CHECKING:
    import pyarrow

KINDS = ("vqa", "caption", "ground")
SPLITS = ("train", "test")
COLUMNS = (
    "id", "task", "source", "image", "image_sha256", "instruction", "answer", "references", "box",
    "attributes", "split",
)  # fmt: skip

MAGIC = (b"\x89PNG", b"\xff\xd8")
"""First bytes of a PNG or JPEG file."""
NO_IMAGES: Mapping[str, bytes] = MappingProxyType({})

EARLIER = "earlier"
"""Additional column of files in which a record has earlier turns."""

RelativeBox = tuple[float, float, float, float]
Size = tuple[int, int]
"""Width and height in pixels."""


class Turn(NamedTuple):
    """An earlier question of a conversation with its answer; `box` as in the record if the answer is a box."""

    instruction: str
    answer: str
    box: RelativeBox | None = None


@dataclass(frozen=True)
class InstructionRecord:
    """One image with an instruction and its answer.

    Attributes:
        id: unique within its file.
        task: the kind, `vqa`, `caption` or `ground`.
        source: registry name of the source.
        image: the image file (PNG or JPEG bytes).
        instruction: the user's request; the backbone adds the image token and the chat format.
        answer: the training target.
        references: acceptable answers, for scoring.
        attributes: labels for partitioning and analysis, by name.
        split: `train` or `test`.
        box: x1, y1, x2, y2 as fractions (0..1) of the original image's sides; grounding only.
        earlier: turns of the conversation before `instruction`; their answers are training targets too.
        frame: the frame in which `answer` writes the box; see `pilot.data.frames`. Not stored: files hold `original`.
        size: size of the image, if `frame` is not `original`.
        known_sha256: digest of an image that was not read (`read_records(..., images=False)`); `image` is then empty.
    """

    id: str
    task: str
    source: str
    image: bytes
    instruction: str
    answer: str
    references: tuple[str, ...]
    attributes: Mapping[str, str]
    split: str
    box: RelativeBox | None = None
    earlier: tuple[Turn, ...] = ()
    frame: Frame = "original"
    size: Size | None = None
    known_sha256: str = field(default="", repr=False)

    @property
    def image_sha256(self) -> str:
        """Digest of the image file."""
        return sha256_bytes(self.image) if self.image else self.known_sha256


def image_of(record: InstructionRecord, images: Mapping[str, bytes]) -> bytes:
    """Return a record's image: its own, or the one of `images` if the record has only the digest."""
    return record.image or images.get(record.known_sha256, b"")


def write_records(path: Path, records: Sequence[InstructionRecord], images: Mapping[str, bytes] = NO_IMAGES) -> None:
    """Validate records and write them as parquet; equal records give equal bytes.

    Args:
        path: the file.
        records: records with their images, or with digests of those in `images`.
        images: image files by sha256.

    Raises:
        UserError: a record is invalid (see `check_records`), or the folder cannot be written to.
    """
    check_records(path, records, images)
    columns = (*COLUMNS, EARLIER) if any(record.earlier for record in records) else COLUMNS
    write_table(path, (_row(record, columns, image_of(record, images)) for record in records), _schema(columns))


def read_records(path: Path, *, images: bool = True) -> list[InstructionRecord]:
    """Read and validate the records in `path`.

    Args:
        path: a file of `write_records`.
        images: whether to read the images; without them, records hold empty bytes and the digest stated in the file,
            and memory use does not grow with the images.

    Raises:
        UserError: a missing file, not parquet, a missing column, or an invalid record.
    """
    records = [_record(path, row) for row in iterate_rows(path, _columns(path, images=images))]
    check_records(path, records, NO_IMAGES if images else None)
    return records


def iterate_records(path: Path) -> Iterator[InstructionRecord]:
    """Yield and validate records with their images, a few in memory at a time; raises as `read_records`.

    What concerns all records together is checked after the last one.
    """
    known = []
    for number, row in enumerate(iterate_rows(path, _columns(path, images=True))):
        record = _record(path, row)
        _check_record(path, number, record, record.image)
        yield record
        known.append(replace(record, image=b"", known_sha256=row["image_sha256"]))
    _check_together(path, known)


def _columns(path: Path, *, images: bool) -> list[str]:
    """Return the columns of a records file to read."""
    columns = [name for name in COLUMNS if images or name != "image"]
    return [*columns, EARLIER] if EARLIER in check_columns(path, columns) else columns


def check_records(
    path: Path, records: Sequence[InstructionRecord], images: Mapping[str, bytes] | None = NO_IMAGES
) -> None:
    """Check that records are valid, ids unique, and splits disjoint by image.

    Args:
        path: file named in messages.
        records: present or future content of the file.
        images: see `write_records`; None if images are not checked.

    Raises:
        UserError: an invalid field (names file, row, field and expected value), a repeated id, or an image in both
            splits.
    """
    for number, record in enumerate(records):
        _check_record(path, number, record, None if images is None else image_of(record, images))
    _check_together(path, records)


def _check_record(path: Path, number: int, record: InstructionRecord, image: bytes | None) -> None:
    for name, expected in _problems(record, image):
        value = "image bytes" if name == "image" else repr(getattr(record, name))
        raise UserError(
            f"{path}: row {number} (id {record.id!r}), field {name}: expected {expected}, got {value}. "
            "Correct or leave out this record."
        )


def _check_together(path: Path, records: Sequence[InstructionRecord]) -> None:
    repeated = [name for name, count in Counter(record.id for record in records).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: field id: expected unique values, {repeated[0]!r} occurs more than once.")
    digests = {split: {r.image_sha256 for r in records if r.split == split} for split in SPLITS}
    if shared := sorted(digests["train"] & digests["test"]):
        raise UserError(
            f"{path}: field image: {len(shared)} images are in both splits, first sha256 {shared[0]}. "
            "Splits must be disjoint by image: remove these images from one of them."
        )


def _problems(record: InstructionRecord, image: bytes | None) -> list[tuple[str, str]]:
    """Return (field, expected value) for every invalid field; None for an image that is not checked."""
    checks = [
        ("id", "a non-empty string", bool(record.id.strip())),
        ("task", f"one of {', '.join(KINDS)}", record.task in KINDS),
        ("image", "a non-empty PNG or JPEG file", image is None or image.startswith(MAGIC)),
        ("instruction", "a non-empty text", bool(record.instruction.strip())),
        ("answer", "a non-empty text", bool(record.answer.strip())),
        ("references", "at least one non-empty text", _all_text(record.references)),
        (EARLIER, "questions and answers that are not empty", _all_turns(record.earlier)),
        ("split", f"one of {', '.join(SPLITS)}", record.split in SPLITS),
    ]
    if record.task == "ground":
        expected = "four fractions x1 < x2, y1 < y2 within 0..1"
        checks.append(("box", expected, record.box is not None and _is_box(record.box)))
    else:
        checks.append(("box", "null (only grounding has a box)", record.box is None))
    return [(name, expected) for name, expected, valid in checks if not valid]


def _all_text(texts: Sequence[str]) -> bool:
    return bool(texts) and all(text.strip() for text in texts)


def _all_turns(turns: Sequence[Turn]) -> bool:
    return all(text.strip() for turn in turns for text in turn[:2])


def _is_box(box: Sequence[float]) -> bool:
    return len(box) == 4 and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1


def _schema(columns: Sequence[str]) -> "pyarrow.Schema":
    import pyarrow

    text, box = pyarrow.string(), pyarrow.list_(pyarrow.float64())
    types = {
        "image": pyarrow.binary(),
        "references": pyarrow.list_(text),
        "box": box,
        EARLIER: pyarrow.list_(pyarrow.struct([("instruction", text), ("answer", text), ("box", box)])),
    }
    return pyarrow.schema([(name, types.get(name, text)) for name in columns])


def _row(record: InstructionRecord, columns: Sequence[str], image: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(record, name) for name in columns} | {"image": image}
    if EARLIER in row:
        row[EARLIER] = [turn._asdict() for turn in record.earlier]
    row["references"] = list(record.references)
    row["box"] = None if record.box is None else list(record.box)
    row["attributes"] = json.dumps(dict(record.attributes), sort_keys=True)
    return row


def earlier_turns(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Return the earlier turns in a row of a records file."""
    turns = row.get(EARLIER) or ()
    return tuple(
        Turn(turn["instruction"] or "", turn["answer"] or "", tuple(turn["box"]) if turn["box"] else None)
        for turn in turns
    )


def _record(path: Path, row: Mapping[str, Any]) -> InstructionRecord:
    """Convert a row to a record; nulls become empty values, which `check_records` refuses with their location."""
    fields: dict[str, Any] = {name: row.get(name) for name in COLUMNS if name != "image_sha256"}
    texts = ("id", "task", "source", "instruction", "answer", "split")
    fields |= {name: fields[name] or "" for name in texts}
    fields["image"] = fields["image"] or b""
    fields["references"] = tuple(text or "" for text in fields["references"] or ())
    fields["box"] = None if fields["box"] is None else tuple(fields["box"])
    fields[EARLIER] = earlier_turns(row)
    try:
        fields["attributes"] = {name: str(value) for name, value in json.loads(fields["attributes"]).items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: id {row['id']!r}, field attributes: expected a JSON object as text, "
            f"got {row['attributes']!r}. Correct or leave out this record."
        ) from error
    record = InstructionRecord(**fields, known_sha256="" if "image" in row else row["image_sha256"] or "")
    if record.image and row["image_sha256"] != record.image_sha256:
        raise UserError(
            f"{path}: id {row['id']!r}, field image_sha256: expected the digest of the image. "
            "The file was altered: remove it and build again."
        )
    return record
