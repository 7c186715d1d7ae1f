"""Training records that lack their picture, or their text beyond the task's prompt (field `missing` of a scenario).

As in FedMLLM (Xu et al. 2024, arXiv 2411.14717) a record's modalities are drawn once, independently, and test data are
complete; a record that lacks both is kept. Deviations: there, a record without a picture has no visual tokens; here its
picture is a plain one in the mean colour of CLIP's training images, so that the connector gets the features of a
picture whose normalised pixels are about zero, at the same number of tokens. There, only accompanying texts are missing
and questions stay; here a question, or the expression of a box, goes, and the line that names the answer's form stays.
Validation parts are complete as well.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from pilot.config.scenario import Scenario, TaskConfig
from pilot.data.prompts import CAPTION, GROUND, SINGLE_WORD
from pilot.data.record import InstructionRecord
from pilot.io.digest import sha256_bytes
from pilot.io.seeding import generator

MEAN_COLOUR = (123, 117, 104)
OPEN = "Answer the question."
"""What is left of a question without a line that names the answer's form."""
SIDE = 64
"""Pixels; the picture is plain, so that every size shows the same."""


@cache
def plain_picture() -> bytes:
    """Return the PNG file of the picture of records without one."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), MEAN_COLOUR).save(buffer, "PNG")
    return buffer.getvalue()


def lacking(
    shards: Mapping[int, Sequence[InstructionRecord]], scenario: Scenario, task: TaskConfig, *, images: bool
) -> dict[int, list[InstructionRecord]]:
    """Return clients' training records of a task without what they lack; digests of images only without `images`."""
    missing = scenario.missing
    assert missing is not None
    clients = scenario.all_clients_of(task.name)
    result = {}
    for client, records in shards.items():
        shares = missing.shares_of(clients.index(client))
        result[client] = [_without(record, _lost(scenario, task, record, shares), images=images) for record in records]
    return result


def bare_prompt(record: InstructionRecord) -> str:
    """Return a record's instruction without its question or expression: what is the same for all of its kind."""
    if record.task == "caption":
        return CAPTION
    if record.task == "ground":
        return GROUND.partition(" {expression}")[0]
    return SINGLE_WORD if record.instruction.endswith(SINGLE_WORD) else OPEN


def _lost(scenario: Scenario, task: TaskConfig, record: InstructionRecord, shares: Mapping[str, float]) -> set[str]:
    def draw(modality: str) -> float:
        return float(generator("missing", scenario.partition_seed, task.name, record.id, modality).random())

    return {modality for modality, share in shares.items() if draw(modality) < share}


def _without(record: InstructionRecord, lost: set[str], *, images: bool) -> InstructionRecord:
    if "image" in lost:
        picture = plain_picture()
        known = {"image": picture, "known_sha256": ""} if images else {"known_sha256": sha256_bytes(picture)}
        record = replace(record, **known)
    if "text" in lost:
        record = replace(record, instruction=bare_prompt(record), earlier=())
    return record
