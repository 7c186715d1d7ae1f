"""First pass over a source: the candidate rows, and the order in which they are tried.

Only a row's location and its image's name are kept, so that memory use grows with neither texts nor images.
"""

import hashlib
import posixpath
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from pilot.data.quarantine import Quarantine, escape_surrogates
from pilot.data.rows import KeptImage, Rejected, Row, Rows, Skipped
from pilot.io.seeding import seed_for
from pilot.io.text import is_unicode

IMAGE_TOKEN = "<image>"
MAX_ID_LENGTH = 200


Item = tuple[str, int | str, int]
"""File, row, and the number (from 0) of the example within the row; identical in every pass."""


@dataclass
class Survey:
    """Result of one pass.

    Attributes:
        candidates: image key by the row's position among all yielded items.
        num_read: number of yielded items; each is used, rejected or skipped.
        used: items of the candidates.
        rejected: items of rows that cannot be used, as far as known without their image.
        skipped: reason by item, for rows that are not examples of the task.
        first_file: file of the first row, for messages.
    """

    candidates: dict[int, str] = field(default_factory=dict)
    num_read: int = 0
    used: set[Item] = field(default_factory=set)
    rejected: set[Item] = field(default_factory=set)
    skipped: dict[Item, str] = field(default_factory=dict)
    first_file: str = ""


def survey(rows: Rows, kind: str, quarantine: Quarantine) -> Survey:
    """Read all rows once; add rejected ones to the quarantine.

    Args:
        rows: output of a reader.
        kind: the task's kind.
        quarantine: receives every rejected row.
    """
    found, ids, examples = Survey(), set[str](), Counter[tuple[str, int | str]]()
    for position, row in enumerate(rows):
        where = (row.place.file, row.place.row)
        item = (*where, examples[where])
        examples[where] += 1
        found.num_read += 1
        found.first_file = found.first_file or row.place.file
        if isinstance(row, Skipped):
            found.skipped[item] = escape_surrogates(row.reason)
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
    """Return why a row cannot become a record of that kind, as far as known without its image; None if it can."""
    ground = kind == "ground"
    texts = [("instruction", row.instruction)]
    texts += [("earlier turns", turn.instruction) for turn in row.earlier]
    texts += [("earlier turns", turn.answer) for turn in row.earlier if turn.box is None]
    texts += [] if ground else [("answer", row.answer), *(("references", text) for text in row.references)]
    problems = [
        ("id", "expected 1 to 200 printable characters", not (row.id.isprintable() and row.id.strip())),
        ("id", "expected 1 to 200 printable characters", len(row.id) > MAX_ID_LENGTH),
        ("image", "expected an image", not row.image),
        ("references", "expected at least one answer", not ground and not row.references),
        ("box", "expected a box", ground and row.box is None),
        ("box", "expected no box (only grounding has one)", not ground and row.box is not None),
        *((name, "expected a non-empty text", not text.strip()) for name, text in texts),
        *((name, f"the text holds {IMAGE_TOKEN}", IMAGE_TOKEN in text) for name, text in texts),
        *((name, "the text is not valid Unicode", not is_unicode(text)) for name, text in texts),
        ("attributes", "the text is not valid Unicode", not all(map(is_unicode, chain(*row.attributes.items())))),
    ]
    return next((Rejected(row.place, name, reason) for name, reason, wrong in problems if wrong), None)


def image_key(image: str | bytes | KeptImage) -> str:
    """Return a key that rows of one image share: the normalised reference, or the digest of the bytes."""
    if isinstance(image, KeptImage):
        return image.sha256
    return hashlib.sha256(image).hexdigest() if isinstance(image, bytes) else posixpath.normpath(image)


def hold_out(found: Survey, fraction: float, seed: int, source: str) -> tuple[dict[int, str], dict[int, str]]:
    """Divide the candidates by image into training and test candidates.

    Every image has an independent draw, and those with the smallest draws are held out: the order of rows does not
    matter, and additional images move few others between the sides. Of several images, each side gets at least one.
    """
    images = sorted(set(found.candidates.values()), key=lambda key: (seed_for("held out", seed, source, key), key))
    number = min(max(1, round(fraction * len(images))), len(images) - 1) if images else 0
    chosen = set(images[:number])
    train = {position: key for position, key in found.candidates.items() if key not in chosen}
    test = {position: key for position, key in found.candidates.items() if key in chosen}
    return train, test


def trial_order(candidates: Mapping[int, str], rng: np.random.Generator) -> list[int]:
    """Return all positions in the order in which they are tried; no image repeats before every image occurred once."""
    positions = list(candidates)
    turn: Counter[str] = Counter()
    order = []
    for place, index in enumerate(rng.permutation(len(positions)).tolist()):
        image = candidates[positions[index]]
        order.append((turn[image], place, positions[index]))
        turn[image] += 1
    return [position for _, _, position in sorted(order)]
