"""Clients and questions that take no part in training, and models after local steps beyond the last round."""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from baselines.disco import group_weights
from baselines.feddpa import weights
from pilot.backbone.lora import initial_lora_state
from pilot.config.scenario import Scenario
from pilot.data.partition import partition_data
from pilot.data.record import read_records
from pilot.data.tables import read_table
from pilot.errors import UserError
from pilot.evaluation.answers import answer_run
from pilot.evaluation.scoring import score_runs
from pilot.federation.adaptation import newcomer_models, post_fit_models
from pilot.federation.assemble import train_settings
from pilot.federation.checkpoint import load_progress
from pilot.federation.client import PhaseTask
from pilot.federation.phase_run import PhaseRun
from pilot.federation.shards import Example, load_examples
from pilot.federation.spec import RunSpec
from pilot.federation.trainer import LocalTrainer
from pilot.federation.training import client_models, train_run
from pilot.io.atomic import read_json, read_jsonl, write_jsonl
from pilot.io.layout import evaluations, run_folder
from pilot.io.verified import write_noted
from pilot.methods.base import ClientInfo, State
from pilot.methods.blind import Blind
from pilot.methods.catalogue import METHODS
from pilot.methods.mixed_lora import QUESTION
from pilot.methods.pilot import Pilot
from pilot.registry import method_class
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.summary import group_runs
from pilot.report.numbers.unseen import unseen_rows

from ..marks import few_of
from ..small import Small, quiet

pytestmark = pytest.mark.slow
TRAINED = [name for name in METHODS if not issubclass(method_class(name), Blind)]
UNSEEN = (6, 7, 8)
"""Two clients of each task train (0 to 5), a third does not."""


@dataclass(frozen=True)
class World:
    """The small scenario with unseen clients and questions, and one finished run per method."""

    small: Small
    kind: str

    def spec(self, method: str) -> RunSpec:
        """A run; every evaluation is asked for."""
        return RunSpec(self.small.scenario, self.small.profile, method, 0)

    def run(self, method: str) -> Path:
        """A finished run."""
        folder = run_folder(self.small.folder, method, 0)
        if not (folder / "manifest.json").is_file():
            train_run(self.spec(method), self.small.folder, folder, True, quiet)
        return folder

    def examples(self, unseen: bool) -> dict[int, list[Example]]:
        """Training parts of the clients."""
        small, frame = self.small, self.small.profile.frame
        return load_examples(
            small.scenario, small.folder, small.backbone, small.features, "train", frame=frame, unseen=unseen
        )

    def newcomers(self, method: str, fit: bool) -> dict[int, State]:
        """The parameters of the unseen clients' models."""
        spec, small = self.spec(method), self.small
        models = newcomer_models(spec, small.backbone, self.run(method), small.features, self.examples(True), fit)
        return {client: load().state() for (client,), load in models.items()}

    def post_fit(self, method: str) -> dict[int, State]:
        """The parameters of the training clients' models after one more round of local steps."""
        spec, small = self.spec(method), self.small
        models = post_fit_models(spec, small.backbone, self.run(method), small.features, self.examples(False))
        return {client: load().state() for (client,), load in models.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Its most frequent kind of questions is kept out of training."""
    root = tmp_path_factory.mktemp("unseen")
    plain = Small(root, clients_per_task=3)
    plain.build()
    records = list(read_records(plain.folder / "data/scene-vqa/records.parquet", images=False))
    asked = [str(record.attributes["question_type"]) for record in records]
    both = [{str(r.attributes["question_type"]) for r in records if r.split == split} for split in ("train", "test")]
    kind = max(sorted(both[0] & both[1]), key=asked.count)
    more = f"""
cross_task: true
post_fit: true
unseen:
  clients_per_task: 1
  questions: {{task: scene-vqa, attribute: question_type, value: {kind}}}
"""
    plain.scenario_file.write_text(plain.scenario_file.read_text() + more)
    small = Small(root, clients_per_task=3)
    partition_data(small.scenario, small.folder)
    return World(small, kind)


def equal(a: State, b: State) -> bool:
    """Same names, same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_split(world: World) -> None:
    small = world.small
    assert [task.name for task in small.scenario.unseen_tasks] == ["scene-vqa", "scene-caption", "scene-ground"]
    assigned = read_table(small.folder / "partition/assignment.parquet", ["task", "id", "client"])
    assert set(assigned["client"].to_pylist()) == {*range(6), *UNSEEN}
    records = read_records(small.folder / "data/scene-vqa/records.parquet", images=False)
    held = {record.id for record in records if record.attributes["question_type"] == world.kind}
    assert held and not held & set(assigned["id"].to_pylist())
    assert sorted(world.examples(False)) == list(range(6)) and sorted(world.examples(True)) == list(UNSEEN)
    report = read_json(small.folder / "partition/heterogeneity.json")
    assert [client["client"] for client in report["clients"] if client.get("unseen")] == list(UNSEEN)


@pytest.mark.parametrize("method", few_of(["pilot", "ditto"], TRAINED))
def test_every_method_has_models_for_newcomers(world: World, method: str) -> None:
    """What they receive is finite and, with own steps, changes; the client's data and task decide it."""
    received = world.newcomers(method, fit=False)
    assert sorted(received) == list(UNSEEN)
    if method == "untuned":
        return
    fit = world.newcomers(method, fit=True)
    for client in UNSEEN:
        assert all(bool(torch.isfinite(value).all()) for value in fit[client].values())
        own = [name for name in fit[client] if name.endswith("lora_B") or name.startswith("language.")]
        assert any(bool((fit[client][name] != received[client].get(name)).any()) for name in own)
    assert not equal(fit[6], fit[7])
    assert all(equal(fit[client], again) for client, again in world.newcomers(method, fit=True).items())


def test_newcomers_receive_the_models_that_there_are(world: World) -> None:
    """One model for all: that one. Local: the backbone as shipped, as there is no server."""
    for method in ("fedavg", "central"):
        (load,) = client_models(world.spec(method), world.small.backbone, world.run(method)).values()
        model = load().state()
        assert all(equal(received, model) for received in world.newcomers(method, fit=False).values())
    (load,) = client_models(world.spec("untuned"), world.small.backbone, world.run("untuned")).values()
    untuned = load().state()
    assert all(equal(received, untuned) for received in world.newcomers("local", fit=False).values())


def test_a_newcomer_of_pilot_has_its_task_and_its_nearest_texts(world: World) -> None:
    """By hand: distances from the initial LoRA, the three nearest, weights 1 / d."""
    progress = load_progress(world.run("pilot") / "checkpoint", None)
    assert progress is not None
    start = initial_lora_state(world.small.backbone.text_adapter, 0)
    texts = progress.server.per_client
    distance = {
        client: sum(float(((text[n] - start[n]).double() ** 2).sum()) for n in text) ** 0.5
        for client, text in texts.items()
    }
    nearest = sorted(distance, key=lambda client: (distance[client], client))[:3]
    weights = {client: 1 / distance[client] for client in nearest}
    received = world.newcomers("pilot", fit=False)
    for name in texts[0]:
        mean = sum(weights[client] * texts[client][name].double() for client in nearest) / sum(weights.values())
        torch.testing.assert_close(received[7][name].double(), mean, rtol=1e-5, atol=1e-7)
    for client, task in zip(UNSEEN, ("scene-vqa", "scene-caption", "scene-ground"), strict=True):
        own = [name for name in progress.server.shared if name.startswith(f"task_adapter.{task}.")]
        assert own
        for name in own:
            there = "task_adapter." + name.removeprefix(f"task_adapter.{task}.")
            assert torch.equal(received[client][there], progress.server.shared[name])
    info = ClientInfo(6, "scene-vqa", ("scene-vqa",), 0)
    assert Pilot().newcomer_state(type(progress.server)(), info, start) == {}, "no client has trained yet"


def test_post_fit_is_one_more_round_without_aggregation(world: World) -> None:
    """FedAvg: the update that the client would send in round 3 is its model."""
    spec, small = world.spec("fedavg"), world.small
    method = spec.make_method()
    progress = load_progress(world.run("fedavg") / "checkpoint", None)
    assert progress is not None
    (phase,), info = method.phases(3), spec.clients(method)[4]
    payload = method.payload(progress.server, info, phase)
    trainer = LocalTrainer(small.backbone, method, train_settings(spec), small.features, world.examples(False))
    sent = trainer.run(PhaseTask(info, phase, 3, 0, 3, payload), {}).update.state
    fit = world.post_fit("fedavg")
    assert sorted(fit) == list(range(6)) and equal(fit[4], sent)
    assert not equal(fit[4], fit[5])


@pytest.mark.parametrize("method", few_of(["disco"], [name for name in TRAINED if name != "untuned"]))
def test_models_after_local_steps_have_the_result(world: World, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor, as the client's last phase that trains it left it, is in the model that answers."""
    trained: dict[int, State] = {}
    asked: dict[int, Tensor] = {}
    train_phase = LocalTrainer.train_phase

    def spy(trainer: LocalTrainer, task: PhaseTask, stored: State) -> tuple[PhaseRun, State]:
        run, gradients = train_phase(trainer, task, stored)
        ended = {name: value.detach().clone() for name, value in run.trainable.items()}
        trained[task.info.client] = trained.get(task.info.client, {}) | ended
        if task.phase.questions:
            asked[task.info.client] = run.recorder.mean(QUESTION)
        return run, gradients

    monkeypatch.setattr(LocalTrainer, "train_phase", spy)
    models = world.newcomers(method, fit=True) | world.post_fit(method)
    assert models.keys() == trained.keys() >= set(UNSEEN)
    for client, state in models.items():
        for name, value in trained[client].items():
            there = [other for other in state.values() if other.shape == value.shape]
            assert any(torch.equal(value, other) for other in there), (client, name)
        if method == "disco":
            assert all(torch.equal(state[name], value) for name, value in trained[client].items())
            groups = {name.split(".")[1]: value for name, value in state.items() if name.startswith("question_feature")}
            shares = group_weights(0.05, asked[client][None], {"centre": groups.pop("centre"), **groups})
            assert int(shares.argmax()) == sorted(groups).index("0"), "its own LoRA answers its own questions"


@pytest.mark.parametrize("method", few_of(["disco"], ["feddpa"]))
def test_newcomers_receive_what_answers(world: World, method: str) -> None:
    """DISCO: all groups' LoRAs, as the clients that trained; FedDPA: the global LoRA, at full strength."""
    received = world.newcomers(method, fit=False)
    if method == "disco":
        (load,) = client_models(world.spec(method), world.small.backbone, world.run(method)).values()
        model = load().state()
        assert all(equal(state, model) for state in received.values())
        assert any(bool(value.any()) for name, value in model.items() if name.endswith("lora_B"))
        return
    progress = load_progress(world.run(method) / "checkpoint", None)
    assert progress is not None
    for state in received.values():
        for name, value in progress.server.shared.items():
            assert torch.equal(state[name.replace("text_adapter.", "other_adapter.1.")], value)
        assert not state["question_feature.own"].any()
        features = torch.rand(2, world.small.backbone.width)
        assert weights(0.5, False, features, {"own": state["question_feature.own"]}).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("method", few_of(["pilot", "ditto", "fedmoe"], TRAINED))
def test_every_method_has_models_after_local_steps(world: World, method: str) -> None:
    fit = world.post_fit(method)
    if method in ("central", "untuned"):
        assert fit == {}
        return
    models = client_models(world.spec(method), world.small.backbone, world.run(method))
    for clients, load in models.items():
        before = load().state()
        for client in clients:
            assert fit[client].keys() == before.keys()
            assert not equal(fit[client], before)


def test_answers_and_table(world: World) -> None:
    """Each evaluation asks whom it should; the table has a line per task, protocol and what is unseen."""
    runs = [world.run(method) for method in ("pilot", "majority")]
    for run in runs:
        answer_run(run, quiet)
    others = ["post-fit", "unseen-clients", "unseen-clients-fit", "unseen-questions"]
    assert evaluations(runs[0], "samples.jsonl") == ["", "cross-task", *others]
    assert evaluations(runs[1], "samples.jsonl") == ["", "unseen-clients", "unseen-questions"]
    rows = {name: read_jsonl(runs[0] / "eval" / name / "samples.jsonl") for name in ["", *others]}
    clients = {name: {client for row in found for client in row["clients"]} for name, found in rows.items()}
    assert clients == {
        "": set(range(6)), "post-fit": set(range(6)), "unseen-clients": set(UNSEEN), "unseen-clients-fit": set(UNSEEN),
        "unseen-questions": {0, 1},
    }  # fmt: skip
    kinds = {
        name: {row["attributes"]["question_type"] == world.kind for row in found if row["task"] == "scene-vqa"}
        for name, found in rows.items()
    }
    assert kinds == {name: {name == "unseen-questions"} for name in rows}
    for run in runs:  # captions are scored by Java, which takes longer than all of this
        for path in run.glob("eval/**/samples.jsonl"):
            rows_left = [row for row in read_jsonl(path) if row["kind"] != "caption"]
            write_noted(path, partial(write_jsonl, rows=rows_left))
    score_runs(runs)
    groups = group_runs(load_runs([run.parent for run in runs]))
    table = unseen_rows(groups)
    own = [row for row in table if row.method == "pilot"]
    assert {(row.unseen, row.protocol) for row in own} == {
        ("clients", "personalised"), ("clients", "local"), ("clients after own steps", "personalised"),
        ("clients after own steps", "local"), ("questions", "personalised"),
    }  # fmt: skip
    assert all(row.difference == pytest.approx((row.mean or 0) - (row.seen or 0)) for row in own)


def test_bad_input(world: World, tmp_path: Path) -> None:
    values = world.small.scenario.model_dump(mode="json")
    for unseen, said in (
        ({"clients_per_task": 3}, "leave none of task scene-vqa to train"),
        ({"questions": {"task": "maths", "attribute": "a", "value": "b"}}, "unknown task maths"),
    ):
        with pytest.raises(ValueError, match=said):
            Scenario.model_validate(values | {"unseen": unseen})
    questions = {"task": "scene-vqa", "attribute": "question_type", "value": "of the universe"}
    scenario = Scenario.model_validate(values | {"unseen": {"questions": questions}})
    with pytest.raises(UserError, match="no training example has question_type 'of the universe'"):
        partition_data(scenario, Path(shutil.copytree(world.small.folder / "data", tmp_path / "data")).parent)
