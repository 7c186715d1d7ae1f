"""Answers of trained runs, generated through lm-eval: `eval/samples.jsonl`."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from pilot.backbone.feature_files import open_features
from pilot.config.model import Frame
from pilot.config.scenario import TaskConfig
from pilot.data.frames import in_frame
from pilot.data.record import InstructionRecord, read_records
from pilot.errors import UserError
from pilot.evaluation import tasks
from pilot.evaluation.trained import load_run, run_spec
from pilot.federation.shards import read_part
from pilot.federation.spec import RunSpec, finished_config, scenario_digests
from pilot.io.atomic import write_jsonl
from pilot.io.layout import scenario_folder
from pilot.io.lock import locked
from pilot.methods.blind import Blind

Row = dict[str, Any]


@dataclass(frozen=True)
class EvaluationSet:
    """Records that a task is evaluated on: its test set, and the held-out parts of some clients."""

    task: TaskConfig
    test: Sequence[InstructionRecord]
    parts: Mapping[int, Sequence[InstructionRecord]]

    @property
    def ids(self) -> list[str]:
        """Ids of all records, the test set first."""
        return [record.id for record in (*self.test, *chain.from_iterable(self.parts.values()))]

    @property
    def frame(self) -> Frame:
        """The frame of boxes in answers."""
        records = (*self.test, *chain.from_iterable(self.parts.values()))
        return records[0].frame if records else "original"

    def for_clients(self, clients: Sequence[int]) -> "EvaluationSet":
        """Return the evaluation set with the parts of `clients` only."""
        return replace(self, parts={client: part for client, part in self.parts.items() if client in clients})


def read_evaluation_sets(spec: RunSpec, scenario_dir: Path, limit: int | None = None) -> list[EvaluationSet]:
    """Read the evaluation set of every task; `limit` cuts each test set and each part to its first records."""
    sets = []
    frame = spec.profile.frame
    for task in spec.scenario.tasks:
        parts = read_part(spec.scenario, scenario_dir, task, "local_test", frame=frame)
        test = read_test_set(scenario_dir, task.name, frame)[:limit]
        sets.append(EvaluationSet(task, test, {client: part[:limit] for client, part in parts.items()}))
    return sets


def check_same_data(run_dir: Path, scenario_dir: Path) -> None:
    """Refuse data or a partition that are missing, damaged, or not those that the run was trained on.

    Raises:
        UserError: one of these holds; the message says what to do.
    """
    if not (scenario_dir / "data").is_dir():
        raise UserError(
            f"{run_dir}: expected the scenario's data in {scenario_dir / 'data'} (a run's folder is "
            "<scenario folder>/runs/<method>/seed<k>). Move the run into its scenario's folder."
        )
    here, trained = scenario_digests(scenario_dir), finished_config(run_dir)["digests"]
    if other := [name for name in ("data", "partition") if here[name] != trained[name]]:
        raise UserError(
            f"{scenario_dir}: {' and '.join(other)} are not those that {run_dir} was trained on. Restore them, or "
            "train the run again."
        )


def answer_run(run_dir: Path, progress: Callable[[int, int], None]) -> None:
    """Answer the clients' test sets and held-out parts with every model of the run; write `eval/samples.jsonl`."""
    with locked(run_dir):
        write_jsonl(run_dir / "eval" / "samples.jsonl", answer_rows(run_dir, progress))


def answer_rows(run_dir: Path, progress: Callable[[int, int], None], limit: int | None = None) -> list[Row]:
    """Return the rows of `eval/samples.jsonl`, sorted; `limit` as in `read_evaluation_sets`.

    lm-eval builds the requests, once for all models of the run (scores are computed later, for all runs together).
    """
    from pilot.evaluation.lm import ImageFeatures, PilotLM

    spec, scenario_dir = run_spec(run_dir), scenario_folder(run_dir)
    check_same_data(run_dir, scenario_dir)
    sets, method = read_evaluation_sets(spec, scenario_dir, limit), spec.make_method()
    if isinstance(method, Blind):
        return [row for evaluation_set in sets for row in _blind_rows(method, spec, scenario_dir, evaluation_set)]
    requests = {evaluation_set.task.name: _requests(evaluation_set, scenario_dir / "data") for evaluation_set in sets}
    backbone, models = load_run(run_dir, lean=True)
    rows: list[Row] = []
    images = ImageFeatures(backbone)
    asked = [request for of_task in requests.values() for request in of_task.values()]
    images.preload(*_stored_features(run_dir, scenario_dir / "features", asked))
    for done, (clients, load) in enumerate(models.items(), start=1):
        model = PilotLM.from_model(backbone, load(), images)
        for evaluation_set in (evaluation_set.for_clients(clients) for evaluation_set in sets):
            if evaluation_set.parts:
                asked = [requests[evaluation_set.task.name][name] for name in evaluation_set.ids]
                answers = dict(zip(evaluation_set.ids, model.generate_until(asked), strict=True))
                rows += sample_rows(evaluation_set.task.name, evaluation_set.test, evaluation_set.parts, answers)
        progress(done, len(models))
    return sorted(rows, key=row_order)


def _stored_features(run_dir: Path, folder: Path, requests: Sequence[Any]) -> tuple[list[Any], torch.Tensor]:
    """Return requests with stored vision features, and the features (M, N, D); none if the run trained on others."""
    cache = open_features(folder)
    rows = {}
    if cache.digest == finished_config(run_dir)["digests"]["features"]:
        rows = {number: cache.row_of.get(request.doc["image_sha256"]) for number, request in enumerate(requests)}
    found = {number: row for number, row in rows.items() if row is not None}
    return [requests[number] for number in found], cache.take(list(found.values()))


def _blind_rows(method: Blind, spec: RunSpec, scenario_dir: Path, evaluation_set: EvaluationSet) -> list[Row]:
    """Answer all questions of a task with one answer, found from the clients' training parts."""
    train = read_part(spec.scenario, scenario_dir, evaluation_set.task, "train", frame=spec.profile.frame)
    answer = method.answer([record for client in sorted(train) for record in train[client]])
    return sample_rows(
        evaluation_set.task.name, evaluation_set.test, evaluation_set.parts, dict.fromkeys(evaluation_set.ids, answer)
    )


def sample_rows(
    task: str,
    test: Sequence[InstructionRecord],
    shards: Mapping[int, Sequence[InstructionRecord]],
    answers: Mapping[str, str],
) -> list[Row]:
    """Return one model's rows of `samples.jsonl`: the test set for all of its clients, each shard for its client."""
    rows = [_row(task, "personalised", sorted(shards), record, answers) for record in test]
    for client, records in sorted(shards.items()):
        rows += [_row(task, "local", [client], record, answers) for record in records]
    return rows


def _row(task: str, protocol: str, clients: list[int], record: InstructionRecord, answers: Mapping[str, str]) -> Row:
    row = {
        "task": task,
        "kind": record.task,
        "protocol": protocol,
        "clients": clients,
        "id": record.id,
        "prediction": answers[record.id],
        "references": list(record.references),
        "box": list(record.box) if record.box else None,
        "attributes": dict(record.attributes),
    }
    if record.size is None:
        return row
    return row | {"frame": record.frame, "size": list(record.size)}


def row_order(row: Row) -> tuple[str, str, list[int], str]:
    """Return the sort key of a row in `samples.jsonl`."""
    return row["task"], row["protocol"], row["clients"], row["id"]


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
        selection.write_text(json.dumps(evaluation_set.ids), encoding="utf-8")
        metadata = {"data": str(data), "ids": str(selection), "task": evaluation_set.task.name}
        metadata |= {"frame": evaluation_set.frame} if evaluation_set.frame != "original" else {}
        manager = TaskManager(include_path=str(tasks.FOLDER), include_defaults=False, metadata=metadata)
        return manager.load([name])["tasks"][name]


def _requests(evaluation_set: EvaluationSet, data: Path) -> dict[str, Any]:
    """Build lm-eval's request for every record of an evaluation set, by record id."""
    task = load_task(evaluation_set, data)
    task.build_all_requests()
    return {str(request.doc["id"]): request for request in task.instances}
