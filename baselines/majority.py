"""Majority. One blind answer per task: the score that is reached without looking at image or question.

- vqa: the most frequent training answer.
- ground: the mean training box, in the frame of the answers.
- caption: the medoid of the training captions, the one most similar to the others.

Nothing is trained and no backbone is used.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pilot.data.frames import box_in_frame
from pilot.data.record import InstructionRecord
from pilot.io.seeding import generator
from pilot.methods.blind import Blind

CAPTION_SAMPLE = 200


@dataclass(frozen=True, kw_only=True)
class Majority(Blind):
    """One blind answer per task, derived from its training records."""

    name: ClassVar[str] = "majority"

    def answer(self, records: Sequence[InstructionRecord]) -> str:
        """Return the task's blind answer."""
        return majority_answer(records)


def majority_answer(records: Sequence[InstructionRecord]) -> str:
    """Return the blind answer for the task of these training records.

    Raises:
        ValueError: there are no records, their kinds differ, or one of kind `ground` has no box.
    """
    kinds = {record.task for record in records}
    if len(kinds) != 1:
        raise ValueError(f"expected training records of one kind, got {sorted(kinds) or 'no records'}")
    kind = kinds.pop()
    rules = {"vqa": most_frequent_answer, "ground": mean_box, "caption": medoid_caption}
    if kind not in rules:
        raise ValueError(f"kind: expected one of {sorted(rules)}, got {kind!r}")
    return rules[kind](records)


def most_frequent_answer(records: Sequence[InstructionRecord]) -> str:
    """Return the most frequent answer; on ties, the alphabetically first."""
    counts = Counter(record.answer for record in records)
    return min(counts, key=lambda answer: (-counts[answer], answer))


def mean_box(records: Sequence[InstructionRecord]) -> str:
    """Return the mean of the boxes' corners as `[x1, y1, x2, y2]` with two decimals."""
    boxes = [box for record in records if (box := box_in_frame(record)) is not None]
    if len(boxes) != len(records):
        raise ValueError(f"{len(records) - len(boxes)} of {len(records)} grounding records have no box")
    means = (sum(corner) / len(boxes) for corner in zip(*boxes, strict=True))
    return f"[{', '.join(f'{mean:.2f}' for mean in means)}]"


def medoid_caption(records: Sequence[InstructionRecord]) -> str:
    """Return the caption with the highest mean unigram F1 to the others, or to `CAPTION_SAMPLE` of them.

    The sample is drawn from the records sorted by id, so their order does not matter. Ties go to the
    alphabetically first caption. A single caption is its own medoid.
    """
    captions = [record.answer for record in sorted(records, key=lambda record: record.id)]
    size = min(CAPTION_SAMPLE, len(captions))
    sample = generator("majority", "caption sample").permutation(len(captions))[:size]
    totals: dict[str, float] = {}
    words = [Counter(caption.lower().split()) for caption in captions]
    for index, caption in enumerate(captions):
        scores = [_unigram_f1(words[index], words[other]) for other in sample if other != index]
        mean = sum(scores) / len(scores) if scores else 0.0
        totals[caption] = max(mean, totals.get(caption, 0.0))
    return min(totals, key=lambda caption: (-totals[caption], caption))


def _unigram_f1(a: Counter[str], b: Counter[str]) -> float:
    """Compute 2 |a and b| / (|a| + |b|) over multisets of words."""
    size = a.total() + b.total()
    return 2 * (a & b).total() / size if size else 0.0
