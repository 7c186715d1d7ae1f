"""Records of a scene source, each made from one seeded draft."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np

from pilot.data.record import InstructionRecord
from pilot.data.scenes.scene import PixelBox, Scene
from pilot.data.scenes.wording import relative_box
from pilot.io.seeding import generator

Progress = Callable[[int, int], None]
"""Called after every record with the number of records made and the total."""


@dataclass(frozen=True)
class Draft:
    """A scene with an instruction and its answer; `box` in pixels, grounding only."""

    scene: Scene
    instruction: str
    answer: str
    references: tuple[str, ...]
    attributes: Mapping[str, str]
    box: PixelBox | None = None


def scenario_generator(seed: int, source: str, split: str, index: int) -> np.random.Generator:
    """Return the generator of one draft; its purpose shares no prefix with that of the public corpus."""
    return generator("scenario", seed, source, split, index)


def collect(
    source: str,
    kind: str,
    draft: Callable[[np.random.Generator], Draft],
    *,
    num_train: int,
    num_test: int,
    seed: int,
    progress: Progress,
) -> list[InstructionRecord]:
    """Make `num_train` and `num_test` records, one per image; skip images that occurred before."""
    records: list[InstructionRecord] = []
    seen: set[str] = set()
    for split, number in (("train", num_train), ("test", num_test)):
        wanted = len(records) + number
        for index in count():
            if len(records) == wanted:
                break
            record = _record(source, kind, split, index, draft(scenario_generator(seed, source, split, index)))
            if (digest := record.image_sha256) not in seen:
                seen.add(digest)
                records.append(record)
                progress(len(records), num_train + num_test)
    return records


def _record(source: str, kind: str, split: str, index: int, draft: Draft) -> InstructionRecord:
    return InstructionRecord(
        id=f"{source}-{split}-{index:05d}",
        task=kind,
        source=source,
        image=draft.scene.png(),
        instruction=draft.instruction,
        answer=draft.answer,
        references=draft.references,
        attributes=draft.attributes,
        split=split,
        box=None if draft.box is None else relative_box(draft.box),
    )
