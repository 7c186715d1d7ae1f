"""The first reading of a source: which rows could be taken, and in which order they are tried.

Only where a row stands and its image's name are kept, so that memory grows with neither texts nor pictures.
"""

import hashlib
import posixpath
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pilot.data.quarantine import Quarantine, plain
from pilot.data.rows import Rejected, Row, Rows, Skipped
from pilot.io.seeding import seed_for

IMAGE_TOKEN = "<image>"
LONGEST_ID = 200


Item = tuple[str, int | str, int]
"""File and row, and a number from 0 for each of several examples of the row: the same at every reading."""


@dataclass
class Survey:
    """What one reading found.

    Attributes:
        candidates: image key by the row's position among everything that the reader yielded.
        num_read: everything that the reader yielded; each is used, rejected or skipped.
        used: the items of the candidates.
        rejected: rows that cannot be used, as far as can be told without their image.
        skipped: rows that are none of the task's, with the reason.
        first_file: the file of the first row, for messages.
    """

    candidates: dict[int, str] = field(default_factory=dict)
    num_read: int = 0
    used: set[Item] = field(default_factory=set)
    rejected: set[Item] = field(default_factory=set)
    skipped: dict[Item, str] = field(default_factory=dict)
    first_file: str = ""


def survey(rows: Rows, kind: str, quarantine: Quarantine) -> Survey:
    """Read all rows once; rejected ones go to the quarantine.

    Args:
        rows: what a reader yields.
        kind: of the task.
        quarantine: told of every rejected row.
    """
    found, ids, examples = Survey(), set[str](), Counter[tuple[str, int | str]]()
    for position, row in enumerate(rows):
        where = (row.place.file, row.place.row)
        item = (*where, examples[where])
        examples[where] += 1
        found.num_read += 1
        found.first_file = found.first_file or row.place.file
        if isinstance(row, Skipped):
            found.skipped[item] = plain(row.reason)
            continue
        rejected = row if isinstance(row, Rejected) else check_row(row, kind)
        if rejected is None and isinstance(row, Row) and row.id in ids:
            rejected = Rejected(row.place, "id", f"the id {row.id!r} occurred before; ids must be unique")
        if rejected:
            quarantine.add(rejected, item[-1])
            found.rejected.add(item)
        elif isinstance(row, Row):
            ids.add(row.id)
            found.used.add(item)
            found.candidates[position] = image_key(row.image)
    return found


def check_row(row: Row, kind: str) -> Rejected | None:
    """Why a row cannot become a record of that kind, as far as can be told without its image."""
    ground = kind == "ground"
    texts = [("instruction", row.instruction)]
    texts += [("earlier turns", turn.instruction) for turn in row.earlier]
    texts += [("earlier turns", turn.answer) for turn in row.earlier if turn.box is None]
    texts += [] if ground else [("answer", row.answer), *(("references", text) for text in row.references)]
    problems = [
        ("id", "expected 1 to 200 printable characters", not (row.id.isprintable() and row.id.strip())),
        ("id", "expected 1 to 200 printable characters", len(row.id) > LONGEST_ID),
        ("image", "expected an image", not row.image),
        ("references", "expected at least one answer", not ground and not row.references),
        ("box", "expected a box", ground and row.box is None),
        ("box", "expected no box (only grounding has one)", not ground and row.box is not None),
        *((name, "expected a non-empty text", not text.strip()) for name, text in texts),
        *((name, f"the text holds {IMAGE_TOKEN}", IMAGE_TOKEN in text) for name, text in texts),
        *((name, "the text is not valid Unicode", not _is_unicode(text)) for name, text in texts),
        ("attributes", "the text is not valid Unicode", not all(map(_is_unicode, _flat(row.attributes)))),
    ]
    return next((Rejected(row.place, name, reason) for name, reason, wrong in problems if wrong), None)


def image_key(image: str | bytes) -> str:
    """What is the same for rows of one image: the reference in its shortest form, or the digest of the bytes."""
    return hashlib.sha256(image).hexdigest() if isinstance(image, bytes) else posixpath.normpath(image)


def held_out(found: Survey, fraction: float, seed: int, source: str) -> tuple[dict[int, str], dict[int, str]]:
    """Candidates for training and for testing, divided by image.

    Every image has a draw of its own, and those with the smallest are held out: the rows' order does not matter, and
    further images move few others across. Of several images, at least one is on either side.
    """
    images = sorted(set(found.candidates.values()), key=lambda key: (seed_for("held out", seed, source, key), key))
    number = min(max(1, round(fraction * len(images))), len(images) - 1) if images else 0
    chosen = set(images[:number])
    train = {position: key for position, key in found.candidates.items() if key not in chosen}
    test = {position: key for position, key in found.candidates.items() if key in chosen}
    return train, test


def ranked(candidates: Mapping[int, str], rng: np.random.Generator) -> list[int]:
    """All positions in the order in which they are tried; no image comes twice before every image came once."""
    positions = list(candidates)
    turn: Counter[str] = Counter()
    order = []
    for place, index in enumerate(rng.permutation(len(positions)).tolist()):
        image = candidates[positions[index]]
        order.append((turn[image], place, positions[index]))
        turn[image] += 1
    return [position for _, _, position in sorted(order)]


def _flat(attributes: Mapping[str, str]) -> list[str]:
    return [text for pair in attributes.items() for text in pair]


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
