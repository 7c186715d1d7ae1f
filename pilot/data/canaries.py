"""Training records with a planted rare answer, by which an audit measures what models memorise (field `canaries`).

As in Carlini et al. (USENIX Security 2019, arXiv 1802.08232) a canary is drawn uniformly from a known set, here the
numbers of two digits, which no question of the suite's own sources has as an answer. A canary is a record of a VQA
client whose answer is replaced; its picture and question stay. Test and validation parts have none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pilot.config.scenario import Scenario, TaskConfig
from pilot.data.record import InstructionRecord
from pilot.io.seeding import generator

ANSWERS = tuple(f"{number:02}" for number in range(100))


@dataclass(frozen=True)
class Canary:
    """A record's planted answer, and another one from the same set that was not planted, as a control."""

    id: str
    answer: str
    control: str


def choose_canaries(
    scenario: Scenario, task: TaskConfig, client: int, records: Sequence[InstructionRecord]
) -> list[Canary]:
    """Draw a client's canaries, which depend on the partition's seed; none for tasks without short answers."""
    if scenario.canaries is None or task.kind != "vqa":
        return []
    source = generator("canaries", scenario.partition_seed, task.name, client)
    names = sorted(record.id for record in records)
    chosen = source.permutation(len(names))[: scenario.canaries]
    answers = source.permutation(len(ANSWERS))
    pairs = zip(chosen, answers, answers[len(chosen) :], strict=False)
    return [Canary(names[place], ANSWERS[planted], ANSWERS[control]) for place, planted, control in pairs]


def with_canaries(
    shards: Mapping[int, Sequence[InstructionRecord]], scenario: Scenario, task: TaskConfig
) -> dict[int, list[InstructionRecord]]:
    """Return clients' training records of a task with the canaries' answers."""
    result = {}
    for client, records in shards.items():
        planted = {canary.id: canary.answer for canary in choose_canaries(scenario, task, client, records)}
        result[client] = [
            replace(record, answer=planted[record.id]) if record.id in planted else record for record in records
        ]
    return result
