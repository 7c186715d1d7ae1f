"""A client's examples, tokenised once and batched deterministically."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache
from pilot.backbone.packed.packing import IGNORED
from pilot.config.model import Frame
from pilot.config.scenario import Scenario, TaskConfig
from pilot.data.canaries import with_canaries
from pilot.data.conditions import as_clients_see
from pilot.data.frames import in_frame
from pilot.data.missing import lacking
from pilot.data.record import InstructionRecord, read_records
from pilot.data.tables import read_table
from pilot.errors import UserError


@dataclass(frozen=True)
class Example:
    """One tokenised record.

    Attributes:
        feature_row: row of the image in the feature cache.
        prompt: token ids of the prompt, after the image or after the earlier turns.
        answer: token ids of the answer, including the end token.
        num_cut: number of ids that the profile's `max_length` cut off, and how many of them were in answers.
        earlier: token ids of the earlier questions and answers.
    """

    feature_row: int
    prompt: list[int]
    answer: list[int]
    num_cut: tuple[int, int] = (0, 0)
    earlier: tuple[tuple[list[int], list[int]], ...] = ()

    @property
    def turns(self) -> tuple[tuple[list[int], list[int]], ...]:
        """Token ids of every question with its answer, in order."""
        return (*self.earlier, (self.prompt, self.answer))

    @property
    def num_ids(self) -> int:
        """Number of token ids after the image."""
        return sum(len(prompt) + len(answer) for prompt, answer in self.turns)


@dataclass(frozen=True)
class Batch:
    """Features (B, N, D), ids after the image (B, L), labels (B, L)."""

    features_BND: Tensor
    ids_BL: Tensor
    labels_BL: Tensor


def make_examples(backbone: Backbone, features: FeatureCache, records: Sequence[InstructionRecord]) -> list[Example]:
    """Tokenise `records`.

    Raises:
        UserError: an image has no features (the cache belongs to other data).
    """
    _require_features(features, records)
    return [_example(backbone, features.row_of[record.image_sha256], record) for record in records]


def _require_features(features: FeatureCache, records: Sequence[InstructionRecord]) -> None:
    missing = [record.id for record in records if record.image_sha256 not in features.row_of]
    if missing:
        raise UserError(f"features: no features for the image of record {missing[0]!r}. Compute the features again.")


class LazyExamples(Sequence[Example]):
    """A client's examples, tokenised when the first of them is read: of many clients, few take part in a round.

    Raises:
        UserError: an image has no features (when created).
    """

    def __init__(self, backbone: Backbone, features: FeatureCache, records: Sequence[InstructionRecord]) -> None:
        _require_features(features, records)
        self._backbone, self._features, self._records = backbone, features, records

    @cached_property
    def _examples(self) -> list[Example]:
        return make_examples(self._backbone, self._features, self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return an example, or a list of them for a slice."""
        return self._examples[index]


def _example(backbone: Backbone, row: int, record: InstructionRecord) -> Example:
    """Tokenise a record, truncated at the end as in LLaVA-1.5: the last answer's tokens first, never the image's."""
    turns = _turns(backbone, record)
    room = sum(map(len, itertools.chain(*turns))) if backbone.max_ids is None else backbone.max_ids
    kept, cut, cut_answers = [], 0, 0
    for prompt, answer in turns:
        shown, said = prompt[:room], answer[: max(0, room - len(prompt))]
        room -= len(shown) + len(said)
        cut_answers += len(answer) - len(said)
        cut += len(prompt) - len(shown) + len(answer) - len(said)
        kept.append((shown, said))
    *earlier, (prompt, answer) = kept
    return Example(row, prompt, answer, (cut, cut_answers), tuple(earlier))


def _turns(backbone: Backbone, record: InstructionRecord) -> list[tuple[list[int], list[int]]]:
    """Return the ids of every question and answer; an empty answer masks the whole example, as in LLaVA's code."""
    first, *later = (*(turn.instruction for turn in record.earlier), record.instruction)
    prompts = [backbone.prompt_ids(first), *map(backbone.follow_up_prompt_ids, later)]
    answers = [*(turn.answer for turn in record.earlier), record.answer]
    turns = [(prompt, backbone.answer_ids(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
    return turns if all(answers) else [(prompt + answer, []) for prompt, answer in turns]


def truncation(examples: Sequence[Example]) -> dict[str, int]:
    """Count what `max_length` cut off: examples, answer tokens, and examples left without any answer token."""
    cut = [example for example in examples if example.num_cut[0]]
    counts = {
        "examples": len(cut),
        "answer_tokens": sum(example.num_cut[1] for example in cut),
        "without_answer": sum(not any(answer for _, answer in example.turns) for example in cut),
    }
    return counts if cut else {}


def batches(
    examples: Sequence[Example], features: FeatureCache, batch_size: int, seed: int, pad: int, skip: int = 0
) -> Iterator[Batch]:
    """Yield batches endlessly, each epoch in a new order drawn from `seed`; the remainder joins the next epoch.

    The first `skip` batches are drawn but not built.
    """
    for chosen in itertools.islice(draws(len(examples), batch_size, seed), skip, None):
        yield collate([examples[i] for i in chosen], features, pad)


def draws(num_examples: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Yield the places of the examples of each batch; see `batches`."""
    source = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while True:
        while len(order) < batch_size:
            order += torch.randperm(num_examples, generator=source).tolist()
        chosen, order = order[:batch_size], order[batch_size:]
        yield chosen


def collate(examples: Sequence[Example], features: FeatureCache, pad: int) -> Batch:
    """Right-pad prompts with answers; label only the answer tokens, those of all turns."""
    length = max(example.num_ids for example in examples)
    ids = torch.full((len(examples), length), pad)
    labels = torch.full((len(examples), length), IGNORED)
    for row, example in enumerate(examples):
        start = 0
        for prompt, answer in example.turns:
            labelled, stop = start + len(prompt), start + len(prompt) + len(answer)
            ids[row, start:stop] = torch.tensor(prompt + answer)
            labels[row, labelled:stop] = ids[row, labelled:stop]
            start = stop
    values = features.take([example.feature_row for example in examples])
    return Batch(values, ids, labels)


def read_part(
    scenario: Scenario,
    scenario_dir: Path,
    task: TaskConfig,
    part: str,
    *,
    frame: Frame,
    images: bool = False,
    unseen: bool = False,
) -> dict[int, list[InstructionRecord]]:
    """Read one part (`train`, `validation`, `local_test`) of the records of a task, by client; boxes in `frame`.

    Without `images`, records hold only the digests of their images, which is enough to train on stored features. With
    `unseen`, the clients are those that take no part in training. Images are as the clients see them, under their own
    conditions if the scenario has any; training records lack what its field `missing` says, and have its canaries.
    """
    path = scenario_dir / "partition" / "assignment.parquet"
    assigned = read_table(path, ["task", "id", "client", "part"], task=task.name, part=part)
    path = scenario_dir / "data" / task.name / "records.parquet"
    records = {record.id: record for record in in_frame(read_records(path, images=images), frame, path)}
    trained, others = scenario.clients_of(task.name), scenario.unseen_clients_of(task.name)
    shards: dict[int, list[InstructionRecord]] = {client: [] for client in (others if unseen else trained)}
    for client, name in zip(assigned["client"].to_pylist(), assigned["id"].to_pylist(), strict=True):
        if client in (trained if unseen else others):
            continue
        if client not in shards or name not in records:
            raise UserError(
                f"{scenario_dir / 'partition'}: assigns record {name!r} of task {task.name} to client {client}, but "
                "the data or the scenario have changed. Run `pilot-bench partition` again."
            )
        shards[client].append(records[name])
    if scenario.conditions:
        shards = as_clients_see(shards, scenario, scenario_dir, task, images=images)
    if part != "train":
        return shards
    if scenario.missing:
        shards = lacking(shards, scenario, task, images=images)
    return with_canaries(shards, scenario, task) if scenario.canaries else shards


def records_of_part(
    scenario: Scenario, scenario_dir: Path, part: str, *, frame: Frame, unseen: bool = False
) -> dict[int, list[InstructionRecord]]:
    """Read one part of the records of all tasks, by client, without images; `frame` and `unseen` as in `read_part`.

    Raises:
        UserError: a client has no records.
    """
    shards = {}
    for task in scenario.tasks:
        found = read_part(scenario, scenario_dir, task, part, frame=frame, unseen=unseen)
        for client, records in found.items():
            if not records:
                raise UserError(
                    f"{scenario_dir / 'partition'}: client {client} of task {task.name} has no {part} examples. "
                    "Use fewer clients, more data or a larger alpha, and partition again."
                )
            shards[client] = records
    return shards


def load_examples(
    scenario: Scenario,
    scenario_dir: Path,
    backbone: Backbone,
    features: FeatureCache,
    part: str,
    *,
    frame: Frame,
    unseen: bool = False,
) -> dict[int, list[Example]]:
    """Load the tokenised examples of one part, by client, boxes in `frame`; raises as `records_of_part`."""
    shards = records_of_part(scenario, scenario_dir, part, frame=frame, unseen=unseen)
    return {client: make_examples(backbone, features, records) for client, records in shards.items()}
