"""What trained models are asked: test sets, clients' held-out parts, and lm-eval's requests for them."""

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from pilot.config.model import Frame
from pilot.config.scenario import TaskConfig
from pilot.data.conditions import seen_images_file
from pilot.data.frames import in_frame
from pilot.data.record import InstructionRecord, read_records
from pilot.evaluation import tasks
from pilot.federation.shards import read_part
from pilot.federation.spec import RunSpec
from pilot.io.layout import CONDITION, NEWCOMERS, NEWCOMERS_FIT, POST_FIT, QUESTIONS


@dataclass(frozen=True)
class EvaluationSet:
    """Records that a task is evaluated on: its test set, and the held-out parts of some clients.

    Attributes:
        newcomers: held-out parts of clients that take no part in training.
        unseen: test records that are like those kept out of training; not in `test`.
        seen: file with the images as clients see them; None if all clients see them as they are.
        condition: place of the imaging conditions under which `test` is shown; None to show it as it is.
    """

    task: TaskConfig
    test: Sequence[InstructionRecord]
    parts: Mapping[int, Sequence[InstructionRecord]]
    newcomers: Mapping[int, Sequence[InstructionRecord]] = field(default_factory=dict)
    unseen: Sequence[InstructionRecord] = ()
    seen: Path | None = None
    condition: int | None = None

    @property
    def ids(self) -> list[str]:
        """Ids of the records of `test` and `parts`, the test set first."""
        return [record.id for record in (*self.test, *chain.from_iterable(self.parts.values()))]

    @property
    def records(self) -> list[InstructionRecord]:
        """All records, for whatever evaluation."""
        return [*self.test, *self.unseen, *chain.from_iterable([*self.parts.values(), *self.newcomers.values()])]

    @property
    def frame(self) -> Frame:
        """The frame of boxes in answers."""
        return self.records[0].frame if self.records else "original"

    def for_clients(self, clients: Sequence[int]) -> "EvaluationSet":
        """Return the evaluation set with the parts of `clients` only."""
        return replace(self, parts={client: part for client, part in self.parts.items() if client in clients})

    def of(self, evaluation: str) -> "EvaluationSet":
        """Return the evaluation set whose `test` and `parts` are those of an evaluation."""
        if evaluation in (NEWCOMERS, NEWCOMERS_FIT):
            return replace(self, parts=self.newcomers)
        if evaluation == POST_FIT:
            return replace(self, parts=dict.fromkeys(self.parts, ()))
        if evaluation.startswith(CONDITION):
            place = int(evaluation.removeprefix(CONDITION)) - 1
            return replace(self, parts=dict.fromkeys(self.parts, ()), newcomers={}, unseen=(), condition=place)
        if evaluation == QUESTIONS:
            return replace(self, test=self.unseen, parts=dict.fromkeys(self.parts if self.unseen else (), ()))
        return self


def read_evaluation_sets(spec: RunSpec, scenario_dir: Path, limit: int | None = None) -> list[EvaluationSet]:
    """Read the evaluation set of every task; `limit` cuts each test set and each part to its first records."""
    sets = []
    frame = spec.profile.frame
    for task in spec.scenario.tasks:
        parts, newcomers = (
            {
                client: part[:limit]
                for client, part in read_part(
                    spec.scenario, scenario_dir, task, "local_test", frame=frame, unseen=unseen
                ).items()
            }
            for unseen in (False, True)
        )
        test = read_test_set(scenario_dir, task.name, frame)
        unseen = [record for record in test if spec.scenario.is_unseen_question(task.name, record.attributes)]
        seen = [record for record in test if not spec.scenario.is_unseen_question(task.name, record.attributes)]
        images = seen_images_file(scenario_dir) if spec.scenario.conditions else None
        sets.append(EvaluationSet(task, seen[:limit], parts, newcomers, unseen[:limit], images))
    return sets


def read_test_set(scenario_dir: Path, task: str, frame: Frame) -> list[InstructionRecord]:
    """Read the records of a task's test split, in the order of the data, with digests in place of images."""
    path = scenario_dir / "data" / task / "records.parquet"
    records = [record for record in read_records(path, images=False) if record.split == "test"]
    return in_frame(records, frame, path)


def load_task(evaluation_set: EvaluationSet, data: Path) -> Any:
    """Load the lm-eval task with an evaluation set's records as its documents."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    name = evaluation_set.task.lm_eval_task
    with tempfile.TemporaryDirectory() as folder:
        selection = Path(folder) / "ids.json"
        selection.write_text(json.dumps([record.id for record in evaluation_set.records]), encoding="utf-8")
        metadata = {"data": str(data), "ids": str(selection), "task": evaluation_set.task.name}
        metadata |= {} if evaluation_set.seen is None else {"seen": str(evaluation_set.seen)}
        metadata |= {} if evaluation_set.condition is None else {"condition": str(evaluation_set.condition)}
        metadata |= {"frame": evaluation_set.frame} if evaluation_set.frame != "original" else {}
        manager = TaskManager(include_path=str(tasks.FOLDER), include_defaults=False, metadata=metadata)
        return manager.load([name])["tasks"][name]


def build_requests(evaluation_set: EvaluationSet, data: Path) -> dict[str, Any]:
    """Build lm-eval's request for every record of an evaluation set, by record id."""
    task = load_task(evaluation_set, data)
    task.build_all_requests()
    return {str(request.doc["id"]): request for request in task.instances}
