"""What the judge hands to attacks: messages of single steps, candidates of which some are members, and models."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from pilot.backbone.backbone import Backbone
from pilot.backbone.from_profile import load_backbone
from pilot.data.canaries import ANSWERS
from pilot.data.record import InstructionRecord
from pilot.evaluation.audit.judge_inputs import Images, Words, own_of_others
from pilot.evaluation.audit.judge_messages import Question
from pilot.evaluation.audit.judge_models import Planted, Tried
from pilot.evaluation.audit.one_step import Step, take_step
from pilot.evaluation.audit.replica import Candidate, Replica
from pilot.evaluation.audit.sighting import Sighting
from pilot.evaluation.audit.truth import Shard, Truth
from pilot.federation.client import PhaseTask
from pilot.federation.shards import Example
from pilot.methods.base import State, group_of

OTHERS_PER_STEP, IMAGES_PER_CLIENT = 24, 3
"""Images that are not in a step's batch; images of a client's batches together, at least, for one step or several."""
MAX_MEMBERS = 60
"""Members and others of a client: as many of either, and the same number for every client."""
QUESTION_STEPS, QUESTIONS_PER_CLIENT, MAX_ANSWERS = 3, 8, 6
REFERENCE_METHOD = "fedavg"
"""Before training, its model computes what the backbone does."""


@dataclass(frozen=True)
class Candidates:
    """Candidates of a run; `steps` has the optimiser steps of each message by client, round and phase."""

    truth: Truth
    steps: Mapping[tuple[int, int, str], int]

    def images_of_steps(self, first: Sequence[Sighting], step: Step) -> list[Images]:
        """Take single steps from the first kept model; each has its batch, and images that are not in it."""
        trainer, groups = self.truth.trainer(self.truth.backbone), []
        for seen, places, others in self._batches(first, step.batch, OTHERS_PER_STEP):
            shard = self.truth.train[seen.info.client]
            message = take_step(trainer, _task(seen), {}, [shard.examples[place] for place in places], step)
            groups.append(self._images(message, shard, places, shard, others))
        return groups

    def images_of_round(self, sightings: Sequence[Sighting]) -> list[Images]:
        """Return what each client's message of a round was trained on, and its held-out images."""
        drawn = [self._drawn(seen) for seen in sightings]
        held_out = [self.truth.held_out[seen.info.client] for seen in sightings]
        number = min(MAX_MEMBERS, *map(len, drawn), *(len(shard.examples) for shard in held_out))
        return [
            self._images(seen, self.truth.train[seen.info.client], places[:number], shard, range(number))
            for seen, places, shard in zip(sightings, drawn, held_out, strict=True)
        ]

    def words(self, backbone: Backbone, first: Sequence[Sighting], batch: int) -> list[Words]:
        """Take single steps on a backbone with LoRA of another rank; the connector is that of the first kept model."""
        trainer, groups = self.truth.trainer(backbone), []
        for seen, places, others in self._batches(first, batch, batch):
            payload = {name: value for name, value in seen.payload.items() if group_of(name) != "text_adapter"}
            shard = self.truth.train[seen.info.client]
            task = replace(_task(seen), payload=payload)
            message = take_step(trainer, task, {}, [shard.examples[place] for place in places], Step(batch))
            groups.append(self._words(message, shard, places, others))
        return groups

    def words_after_training(self, last: Sequence[Sighting]) -> list[Words]:
        """Take single steps from where the clients are after the last round, with their private states."""
        truth, groups = self.truth, []
        trainer, progress, method = truth.trainer(truth.backbone), truth.final(), truth.spec.make_method()
        phase = [each for each in method.phases(truth.spec.profile.rounds + 1) if each.shared][-1]
        for seen, places, others in self._batches(last, 1, 1):
            payload = method.payload(progress.server, seen.info, phase)
            shard, stored = truth.train[seen.info.client], truth.stored(progress, seen.info.client)
            task = PhaseTask(seen.info, phase, truth.spec.profile.rounds + 1, 0, 1, payload)
            message = take_step(trainer, task, stored, [shard.examples[place] for place in places], Step())
            groups.append(self._words(message, shard, places, others))
        return groups

    def questions_of_steps(self, first: Sequence[Sighting], step: Step) -> Iterator[tuple[Replica, list[Question]]]:
        """Yield each VQA client's model, with the first example of each single step."""
        trainer = self.truth.trainer(self.truth.backbone)
        for seen in self._closed(first):
            client = seen.info.client
            shard, places = self.truth.train[client], self._answerable(client)
            number = min(QUESTION_STEPS, len(places) // step.batch)
            batches = [places[start::number][: step.batch] for start in range(number)]
            messages = [
                take_step(trainer, _task(seen), {}, [shard.examples[place] for place in batch], step)
                for batch in batches
            ]
            questions = [self._question(each, batch[0]) for each, batch in zip(messages, batches, strict=True)]
            yield self._model(seen, {}), questions

    def questions_of_round(self, sightings: Sequence[Sighting]) -> Iterator[tuple[Replica, list[Question]]]:
        """Yield each VQA client's model at the start of a round, with some of the examples that it took."""
        for seen in self._closed(sightings):
            drawn = set(self._drawn(seen))
            places = [place for place in self._answerable(seen.info.client) if place in drawn]
            yield self._model(seen, {}), [self._question(seen, place) for place in places[:QUESTIONS_PER_CLIENT]]

    def tried(self, last: Sequence[Sighting]) -> list[Tried]:
        """Return losses of members and held-out examples on each client's last model."""
        parts = (self.truth.train, self.truth.held_out)
        number = min(MAX_MEMBERS, *(len(part[client].examples) for client in self._ids(last) for part in parts))
        asked = []
        for client in self._ids(last):
            own, others = self.truth.train[client], self.truth.held_out[client]
            inside = [self.truth.candidate(own, place) for place in self.truth.shuffled(client, number, "members")]
            asked.append(inside + [self.truth.candidate(others, place) for place in range(number)])
        own_losses, other_losses, reference = self._losses(last, asked)
        members = [True] * number + [False] * number
        rows = zip(asked, own_losses, other_losses, reference, strict=True)
        return [Tried(each, members, own, other, base) for each, own, other, base in rows]

    def planted(self, last: Sequence[Sighting]) -> list[Planted]:
        """Return the losses of all possible answers to the canaries' questions."""
        canaries = [self.truth.canaries(client) for client in self._ids(last)]
        asked = [
            [
                replace(self.truth.candidate(self.truth.train[client], place), answer=answer)
                for place, _ in of_client for answer in self._possible
            ]
            for client, of_client in zip(self._ids(last), canaries, strict=True)
        ]  # fmt: skip
        if not any(asked):
            return []
        found, size = [], len(ANSWERS)
        for place, losses in enumerate(zip(*self._losses(last, asked), strict=True)):
            for number, (_, canary) in enumerate(canaries[place]):
                rows = [each[number * size : (number + 1) * size] for each in losses]
                image = asked[place][number * size].image
                found.append(Planted(image, ANSWERS.index(canary.answer), ANSWERS.index(canary.control), *rows))
        return found

    def backbone_of_rank(self, rank: int) -> Backbone:
        """Load the run's backbone with LoRA of another rank, and alpha in proportion."""
        profile = self.truth.spec.profile
        lora = profile.lora.model_copy(update={"rank": rank, "alpha": profile.lora.alpha / profile.lora.rank * rank})
        return load_backbone(profile.model_copy(update={"lora": lora}), lean=True)

    @cached_property
    def _possible(self) -> list[tuple[int, ...]]:
        return [tuple(self.truth.backbone.answer_ids(answer)) for answer in ANSWERS]

    def _losses(
        self, last: Sequence[Sighting], asked: Sequence[Sequence[Candidate]]
    ) -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
        """Return losses of each client's candidates on its own model, another client's, and the backbone."""
        other_of = own_of_others(last)
        own, other = [], [[] for _ in last]  # type: ignore[var-annotated]
        for place, seen in enumerate(last):
            model = self._model(seen, seen.known)
            own.append(model.losses(asked[place]))
            for asker in (number for number, target in enumerate(other_of) if target == place):
                other[asker] = model.losses(asked[asker])
        method = replace(self.truth.spec, method=REFERENCE_METHOD, options={}).make_method()
        reference = Replica.build(self.truth.backbone, method, method.phases(1)[0], last[0].info, {}, {})
        return own, other, [reference.losses(each) for each in asked]

    def _model(self, seen: Sighting, known: State) -> Replica:
        method = self.truth.spec.make_method()
        return Replica.build(self.truth.backbone, method, seen.phase, seen.info, seen.payload, known)

    def _batches(
        self, sightings: Sequence[Sighting], batch: int, num_others: int
    ) -> Iterator[tuple[Sighting, list[int], list[int]]]:
        """Yield each client's batches for single steps, each with places that are in no other of its batches."""
        size, number = batch + num_others, max(1, IMAGES_PER_CLIENT // batch)
        for seen in sightings:
            order = self.truth.shuffled(seen.info.client, number * size, "one step")
            for start in range(0, max(1, len(order) // size) * size, size):
                yield seen, order[start:][:batch], order[start + batch :][:num_others]

    def _drawn(self, seen: Sighting) -> list[int]:
        return self.truth.members(seen, self.steps[seen.info.client, seen.round_number, seen.phase.name])

    def _images(
        self, seen: Sighting, inside: Shard, places: Sequence[int], outside: Shard, others: Sequence[int]
    ) -> Images:
        found = [self.truth.candidate(inside, place) for place in places]
        found += [self.truth.candidate(outside, place) for place in others]
        members = np.arange(len(found)) < len(places)
        names = np.array([each.image for each in found])
        return Images(seen, torch.stack([each.features_ND.float() for each in found]), members, names)

    def _words(self, seen: Sighting, shard: Shard, places: Sequence[int], others: Sequence[int]) -> Words:
        inside, outside = ({id for place in each for id in _read(shard.examples[place])} for each in (places, others))
        image = shard.records[places[0]].image_sha256
        return Words(seen, sorted(inside - outside), sorted(outside - inside), image)

    def _closed(self, sightings: Sequence[Sighting]) -> list[Sighting]:
        tasks = self.truth.spec.scenario.client_tasks
        return [seen for seen in sightings if tasks[seen.info.client].kind == "vqa"]

    def _answerable(self, client: int) -> list[int]:
        """Return the places of a client's examples, shuffled, whose answer is among those that are tried."""
        records = self.truth.train[client].records
        order = self.truth.shuffled(client, len(records), "questions")
        return [place for place in order if records[place].answer in self._tried_answers(client, records[place])]

    def _question(self, seen: Sighting, place: int) -> Question:
        shard = self.truth.train[seen.info.client]
        answers = self._tried_answers(seen.info.client, shard.records[place])
        base = self.truth.candidate(shard, place)
        candidates = [replace(base, answer=tuple(self.truth.backbone.answer_ids(answer))) for answer in answers]
        public = self._public(seen.info.client, shard.records[place])
        return Question(seen, candidates, answers, public, answers.index(shard.records[place].answer))

    def _tried_answers(self, client: int, record: InstructionRecord) -> list[str]:
        """Return the most frequent public answers to questions of a record's kind."""
        counts = Counter(self._public(client, record))
        return sorted(sorted(counts), key=lambda answer: -counts[answer])[:MAX_ANSWERS]

    def _public(self, client: int, record: InstructionRecord) -> list[str]:
        task = self.truth.spec.scenario.client_tasks[client]
        attribute = task.partition.attribute
        kind = record.attributes.get(attribute) if attribute else None
        return self._public_answers[task.name].get(kind, [])

    @cached_property
    def _public_answers(self) -> dict[str, dict[str | None, list[str]]]:
        found: dict[str, dict[str | None, list[str]]] = {}
        for task in self.truth.spec.scenario.tasks:
            if task.kind != "vqa":
                continue
            for record in self.truth.public_records(task.name):
                kind = record.attributes.get(task.partition.attribute) if task.partition.attribute else None
                found.setdefault(task.name, {}).setdefault(kind, []).append(record.answer)
        return found

    def _ids(self, sightings: Sequence[Sighting]) -> list[int]:
        return [seen.info.client for seen in sightings]


def _task(seen: Sighting) -> PhaseTask:
    return PhaseTask(seen.info, seen.phase, max(1, seen.round_number), 0, 1, seen.payload)


def _read(example: Example) -> set[int]:
    """Return the ids that the LLM reads: all but the end token, which is only predicted."""
    (prompt, answer), *others = reversed(example.turns)
    return {*prompt, *answer[:-1], *(id for turn in others for part in turn for id in part)}
