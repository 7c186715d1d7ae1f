"""Answers of trained runs, generated through lm-eval.

Answers of the last round's models to their clients' own task, test set and held-out parts, are in `eval/samples.jsonl`.
Other evaluations, as far as profile and scenario ask for them, are in folders of `eval/`: `round-<r>` of an earlier
round's models; `cross-task` on the test sets of the other tasks; `post-fit` after one more round of local steps;
`unseen-clients` and `unseen-clients-fit` of clients that took no part, as they receive their models and after own
steps; `unseen-questions` on questions that were kept out of training; `condition-<n>` on test images under the imaging
conditions of the scenario's n-th clients.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import open_features
from pilot.data.record import InstructionRecord
from pilot.evaluation.forgetting import lm_eval_metrics, public_rows
from pilot.evaluation.public import PUBLIC
from pilot.evaluation.sets import EvaluationSet, build_requests, read_evaluation_sets
from pilot.evaluation.trained import check_same_data, load_backbone_of, run_spec
from pilot.federation.adaptation import Models, newcomer_models, post_fit_models
from pilot.federation.client import ClientModel
from pilot.federation.shards import load_examples, read_part
from pilot.federation.spec import RunSpec, finished_config
from pilot.federation.training import client_models
from pilot.io.atomic import remove_folder, write_json, write_jsonl
from pilot.io.layout import (
    CONDITION,
    CROSS_TASK,
    FORGETTING,
    FORGETTING_LM_EVAL,
    LAST,
    METRICS,
    NEWCOMERS,
    NEWCOMERS_FIT,
    POST_FIT,
    QUESTIONS,
    SAMPLES,
    condition_evaluation,
    evaluation_folder,
    evaluations,
    round_evaluation,
    scenario_folder,
)
from pilot.io.lock import locked
from pilot.io.verified import write_noted
from pilot.methods.base import Method
from pilot.methods.blind import Blind

if TYPE_CHECKING:
    from pilot.evaluation.lm import ImageFeatures, PilotLM

Row = dict[str, Any]
Requests = Mapping[str, Mapping[str, Any]]
"""lm-eval's requests by task and record id."""
Asked = tuple[Requests, "ImageFeatures"]
"""Requests, and the vision features of their images."""


def answer_run(run_dir: Path, progress: Callable[[int, int], None]) -> None:
    """Answer with every model of the run, and write the files of answers; those of the last round are written last."""
    with locked(run_dir):
        asked = _Questions.read(run_dir)
        names = asked.evaluations()
        for name in {*evaluations(run_dir, SAMPLES), *evaluations(run_dir, METRICS)}:
            if name not in names:
                remove_folder(evaluation_folder(run_dir, name))
        for done, name in enumerate(names):
            advance, folder = partial(_advance, progress, done, len(names)), evaluation_folder(run_dir, name)
            if name == FORGETTING_LM_EVAL:
                metrics = asked.lm_eval_metrics(advance)
                write_noted(folder / METRICS, partial(write_json, value=metrics))
            else:
                rows = asked.answers(name, advance)
                write_noted(folder / SAMPLES, partial(write_jsonl, rows=rows))


def _advance(progress: Callable[[int, int], None], finished: int, num: int, done: int, total: int) -> None:
    """Report the progress of one of `num` evaluations."""
    progress(finished * total + done, num * total)


def answer_rows(run_dir: Path, progress: Callable[[int, int], None], limit: int | None = None) -> list[Row]:
    """Return the rows of `eval/samples.jsonl`, sorted; `limit` as in `read_evaluation_sets`."""
    return _Questions.read(run_dir, limit).answers(LAST, progress)


@dataclass(frozen=True)
class _Questions:
    """What a run's models are asked; lm-eval builds the requests, once for all models.

    Scores are computed later, for all runs together.
    """

    run_dir: Path
    spec: RunSpec
    sets: Sequence[EvaluationSet]

    @classmethod
    def read(cls, run_dir: Path, limit: int | None = None) -> "_Questions":
        spec, scenario_dir = run_spec(run_dir), scenario_folder(run_dir)
        check_same_data(run_dir, scenario_dir)
        return cls(run_dir, spec, read_evaluation_sets(spec, scenario_dir, limit))

    @cached_property
    def method(self) -> Method:
        return self.spec.make_method()

    @cached_property
    def asked(self) -> Asked:
        """What clients see, and test images as they are."""
        return self._build(self.sets)

    def _build(self, sets: Sequence[EvaluationSet]) -> Asked:
        from pilot.evaluation.lm import ImageFeatures

        folder, images = scenario_folder(self.run_dir), ImageFeatures(self.backbone)
        built = {each.task.name: build_requests(each, folder / "data") for each in sets}
        asked = [request for of_task in built.values() for request in of_task.values()]
        images.preload(*_stored_features(self.run_dir, folder / "features", asked))
        return built, images

    @cached_property
    def backbone(self) -> Backbone:
        return load_backbone_of(self.run_dir)

    def evaluations(self) -> list[str]:
        """Return the names of the run's evaluations; that of the last round is the last one."""
        scenario, trains = self.spec.scenario, bool(self.method.phases(1))
        questions = [QUESTIONS] if any(each.unseen for each in self.sets) else []
        newcomers = [NEWCOMERS] if scenario.unseen else []
        if isinstance(self.method, Blind):
            return [*newcomers, *questions, LAST]
        newcomers += [NEWCOMERS_FIT] if scenario.unseen and trains else []
        earlier = self.spec.profile.evaluated_rounds if trains else ()
        others = [CROSS_TASK] if scenario.cross_task and not self.method.single_model else []
        fit = [POST_FIT] if scenario.post_fit and trains and self.method.exchanges and not self.method.pooled else []
        named = [FORGETTING] if set(PUBLIC) & set(self.spec.profile.forgetting) else []
        named += [FORGETTING_LM_EVAL] if self._lm_eval_tasks() else []
        seen = map(condition_evaluation, range(len(scenario.conditions or ())))
        return [*map(round_evaluation, earlier), *others, *fit, *newcomers, *questions, *seen, *named, LAST]

    def answers(self, evaluation: str, progress: Callable[[int, int], None]) -> list[Row]:
        """Return the sorted rows of an evaluation."""
        if isinstance(self.method, Blind):
            sets = [each.of(evaluation) for each in self.sets]
            return [row for each in sets for row in _blind_rows(self.method, self.spec, self.run_dir, each)]
        if evaluation == FORGETTING:
            return public_rows(self.spec, self.run_dir, progress)
        from pilot.evaluation.lm import PilotLM

        models, (requests, images) = self._models(evaluation), self._asked_by(evaluation)
        rows: list[Row] = []
        for done, (clients, load) in enumerate(models.items(), start=1):
            model = PilotLM.from_model(self.backbone, load(), images)
            for each in self.sets:
                own = each.of(evaluation).for_clients(clients)
                if evaluation == CROSS_TASK:
                    rows += [] if own.parts else _cross_task_rows(model, clients, each, requests)
                elif own.parts:
                    answers = _ask(model, requests[own.task.name], own.ids)
                    rows += sample_rows(own.task.name, own.test, own.parts, answers)
            progress(done, len(models))
        return sorted(rows, key=row_order)

    def lm_eval_metrics(self, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Return the metrics of the tasks of lm-eval that the profile names."""
        from pilot.evaluation.lm import PilotLM

        def loader(load: Callable[[], ClientModel]) -> Callable[[], Any]:
            return lambda: PilotLM.from_model(self.backbone, load(), self.asked[1])

        models = {clients: loader(load) for clients, load in self._models(LAST).items()}
        return lm_eval_metrics(models, self._lm_eval_tasks(), progress)

    def _lm_eval_tasks(self) -> list[str]:
        return [name for name in self.spec.profile.forgetting if name not in PUBLIC]

    def _models(self, evaluation: str) -> Models:
        if evaluation in (POST_FIT, NEWCOMERS, NEWCOMERS_FIT):
            folder = scenario_folder(self.run_dir)
            features, frame = open_features(folder / "features"), self.spec.profile.frame
            unseen = evaluation != POST_FIT
            examples = load_examples(
                self.spec.scenario, folder, self.backbone, features, "train", frame=frame, unseen=unseen
            )
            where = (self.spec, self.backbone, self.run_dir, features, examples)
            return newcomer_models(*where, evaluation == NEWCOMERS_FIT) if unseen else post_fit_models(*where)
        number = next((r for r in self.spec.profile.evaluated_rounds if round_evaluation(r) == evaluation), None)
        return client_models(self.spec, self.backbone, self.run_dir, number)

    def _asked_by(self, evaluation: str) -> Asked:
        """Return the requests of an evaluation; those for test images under a condition are no other's."""
        if evaluation.startswith(CONDITION):
            return self._build([each.of(evaluation) for each in self.sets])
        return self.asked


def _cross_task_rows(model: "PilotLM", clients: Sequence[int], asked: EvaluationSet, requests: Requests) -> list[Row]:
    answers = _ask(model, requests[asked.task.name], [record.id for record in asked.test])
    return [_row(asked.task.name, CROSS_TASK, list(clients), record, answers) for record in asked.test]


def _ask(model: "PilotLM", requests: Mapping[str, Any], ids: Sequence[str]) -> dict[str, str]:
    return dict(zip(ids, model.generate_until([requests[each] for each in ids]), strict=True))


def _stored_features(run_dir: Path, folder: Path, requests: Sequence[Any]) -> tuple[list[Any], torch.Tensor]:
    """Return requests with stored vision features, and the features (M, N, D); none if the run trained on others."""
    cache = open_features(folder)
    rows = {}
    if cache.digest == finished_config(run_dir)["digests"]["features"]:
        rows = {number: cache.row_of.get(request.doc["image_sha256"]) for number, request in enumerate(requests)}
    found = {number: row for number, row in rows.items() if row is not None}
    return [requests[number] for number in found], cache.take(list(found.values()))


def _blind_rows(method: Blind, spec: RunSpec, run_dir: Path, evaluation_set: EvaluationSet) -> list[Row]:
    """Answer all questions of a task with one answer, found from the clients' training parts."""
    folder, frame = scenario_folder(run_dir), spec.profile.frame
    train = read_part(spec.scenario, folder, evaluation_set.task, "train", frame=frame)
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
