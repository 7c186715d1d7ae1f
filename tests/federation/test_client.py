"""Training on a client: what changes, what must not, and that no client depends on another."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pilot.connector.base import Connector, ConnectorOutput, PlainConnector
from pilot.connector.projector import Projector
from pilot.federation.client import PhaseTask, TrainingResult, build_client_model
from pilot.federation.driver import Driver
from pilot.federation.guard import LeakError, check_outgoing
from pilot.federation.ledger import Ledger
from pilot.federation.optimisation import rate_factor
from pilot.federation.participant import ClientResult, Participant
from pilot.federation.participation import Participation, schedule
from pilot.federation.rounds import Plan
from pilot.federation.store import ClientStore, Version
from pilot.federation.transport import Answer, LocalTransport
from pilot.methods.base import ClientInfo, Method, Phase, ServerState, State, Update, group_of, select

from ..small import Small

SCENE_TASKS = ("scene-vqa", "scene-caption", "scene-ground")


def info(client: int, seed: int = 0) -> ClientInfo:
    """A client of the small scenario: two per task."""
    return ClientInfo(client, SCENE_TASKS[client // 2], SCENE_TASKS, seed)


def train(small: Small, method: str, phase: Phase, payload: State | None = None) -> tuple[State, State]:
    """Client 2's state before and after three steps of a phase."""
    trainer = small.trainer(method)
    before = build_client_model(small.backbone, trainer.method, phase, info(2), {}, payload or {}).state()
    trained = trainer.run(PhaseTask(info(2), phase, 1, 0, 3, payload or {}), {})
    return before, {**trained.private, **trained.update.state}


@pytest.mark.parametrize(
    ("method", "round_number", "changed", "kept"),
    [
        ("pilot", 1, {"task_adapter", "client_adapter", "text_adapter"}, set()),
        (
            "pilot", 2, {"task_adapter", "cross_task_adapter", "router", "text_adapter"},
            {"peer_task_adapter", "client_adapter"},
        ),
        ("fedavg", 1, {"connector", "text_adapter"}, set()),
        ("fedprox", 1, {"connector", "text_adapter"}, set()),
        ("fedmoe", 1, {"experts", "router", "text_adapter"}, set()),
        ("local", 1, {"connector", "text_adapter"}, set()),
    ],
)  # fmt: skip
def test_exactly_the_phase_groups_change(
    small: Small, method: str, round_number: int, changed: set[str], kept: set[str]
) -> None:
    phase = small.spec(method).make_method().phases(round_number)[0]
    before, after = train(small, method, phase)
    assert before.keys() == after.keys()
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    assert {group_of(name) for name in differing} == changed
    assert differing == {name for name in before if group_of(name) in changed}, "every tensor of the groups"
    assert {group_of(name) for name in before} == changed | kept


def test_what_came_is_neither_sent_nor_kept(small: Small) -> None:
    """The other tasks' adapters come with every payload of stage 2; the client keeps its own private parts only."""
    phase = small.spec("pilot").make_method().phases(2)[0]
    shapes = small.backbone.projector().state_dict()
    payload = {
        f"peer_task_adapter.{task}.{name}": torch.full(value.shape, 0.25 + task)
        for task in (0, 2)
        for name, value in shapes.items()
    }
    trainer = small.trainer("pilot")
    trained = trainer.run(
        PhaseTask(info(2), phase, 1, 0, 3, payload), {"client_adapter.linear_1.bias": torch.ones(128)}
    )
    assert {group_of(name) for name in trained.private} == {"client_adapter", "cross_task_adapter", "router"}
    assert {group_of(name) for name in trained.update.state} == {"task_adapter", "text_adapter"}
    assert trained.received.keys() == trained.update.state.keys()
    assert torch.equal(trained.private["client_adapter.linear_1.bias"], torch.ones(128)), "frozen in stage 2"


def test_frozen_backbone_is_bit_identical(small: Small) -> None:
    def frozen() -> dict[str, Tensor]:
        state = small.backbone.model.state_dict()
        return {name: value.clone() for name, value in state.items() if "lora_" not in name}

    before = frozen()
    for method in ("pilot", "fedmoe"):
        train(small, method, small.spec(method).make_method().phases(1)[0])
    after = frozen()
    assert len(before) > 60 and before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Stray(Connector):
    """A connector with a parameter that takes part in nothing."""

    def __init__(self, projector: Projector) -> None:
        super().__init__()
        self.connector = nn.ModuleDict({"used": projector.duplicate(), "unused": nn.Linear(2, 2)})

    def forward(self, features_BND: Tensor) -> ConnectorOutput:
        return ConnectorOutput(self.connector["used"](features_BND))


class StrayMethod(Method):
    """Declares a group of which a tensor gets no gradient."""

    single_model = True

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        return (Phase("train", frozenset({"connector"}), frozenset()),)

    def make_connector(
        self, phase: Phase, client: ClientInfo, projector: Projector, received: State | None = None
    ) -> Connector:
        return Stray(projector)


def test_trainable_without_gradient_is_an_error(small: Small) -> None:
    trainer = small.trainer("local")
    trainer.method = StrayMethod()
    task = PhaseTask(info(0), trainer.method.phases(1)[0], 1, 0, 1, {})
    with pytest.raises(RuntimeError, match=r"no gradient reaches 2 trainable tensors.*connector\.unused\.weight"):
        trainer.run(task, {})


def test_payload_that_fits_nowhere_is_an_error(small: Small) -> None:
    trainer = small.trainer("fedavg")
    phase = trainer.method.phases(1)[0]
    with pytest.raises(ValueError, match="payload does not fit.*connector.linear_9.bias"):
        trainer.run(PhaseTask(info(0), phase, 1, 0, 1, {"connector.linear_9.bias": torch.zeros(2)}), {})
    with pytest.raises(ValueError, match=r"connector\.linear_1\.bias: shape \(1,\)"):
        trainer.run(PhaseTask(info(0), phase, 1, 0, 1, {"connector.linear_1.bias": torch.zeros(1)}), {})


def test_only_declared_groups_and_statistics_may_leave() -> None:
    phase = Phase("stage2", frozenset(), frozenset({"task_adapter"}), statistics={"share": (1,)})
    fine = Update(3, "a", 5, {"task_adapter.w": torch.zeros(1)}, {"share": torch.zeros(1)})
    check_outgoing(fine, phase)
    for group in ("client_adapter", "router", "cross_task_adapter", "peer_task_adapter", "text_adapter"):
        with pytest.raises(LeakError, match=rf"client 3: {group}\.w may not leave the client in phase stage2"):
            check_outgoing(replace(fine, state={f"{group}.w": torch.zeros(1)}), phase)
    with pytest.raises(LeakError, match="client 3: statistic losses may not leave"):
        check_outgoing(replace(fine, statistics={"losses": torch.zeros(1)}), phase)


def test_transport_refuses_what_may_not_leave(small: Small, tmp_path: Path) -> None:
    """A trainer that hands out a private group is stopped before anything is sent."""
    trainer = small.trainer("pilot")
    phase = trainer.method.phases(1)[0]

    def leaky(task: PhaseTask, stored: State) -> TrainingResult:
        result = trainer.run(task, stored)
        return replace(result, update=replace(result.update, state=select(result.private, {"client_adapter"})))

    transport = LocalTransport(lambda client: Participant(leaky, ClientStore(tmp_path / str(client))))
    with pytest.raises(LeakError, match="client 1: client_adapter.linear_1.weight may not leave"):
        next(transport.exchange([PhaseTask(info(1), phase, 1, 0, 1, {})], lambda steps: None))
    assert not list(tmp_path.rglob("*")), "nothing was kept either"


class Recording:
    """A transport that keeps every update."""

    def __init__(self, inner: LocalTransport) -> None:
        self.inner, self.parallel = inner, False
        self.updates: list[Update] = []

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        for answer in self.inner.exchange(tasks, progress):
            assert isinstance(answer, ClientResult)
            self.updates.append(answer.update)
            yield answer

    def verify(self, versions: Mapping[int, Version], wait: bool = True) -> str:
        return self.inner.verify(versions)


def first_round(small: Small, clients: Sequence[int]) -> tuple[dict[int, State], ServerState]:
    """The updates after FedAvg's first round, by client, and the server."""
    trainer = small.trainer("fedavg")
    store = ClientStore(Path(tempfile.mkdtemp()))
    transport = Recording(LocalTransport(lambda client: Participant(trainer.run, store)))
    counts = {client: len(small.examples[client]) for client in clients}

    def template(phase: Phase, client: ClientInfo, payload: State) -> State:
        return {**dict(PlainConnector(small.backbone.projector()).named_parameters()), **small.backbone.text_adapter}

    rounds = schedule(Participation(), clients, 1, 0)
    infos, steps = [info(client) for client in clients], dict.fromkeys(counts, 3)
    plan = Plan(trainer.method, infos, counts, 1, steps, template, rounds)
    final = Driver(plan, transport, Ledger(1)).run(None)
    return {update.client: update.state for update in transport.updates}, final.server


def equal(first: State, second: State) -> bool:
    """Same names in any order, same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_clients_do_not_depend_on_each_other(small: Small) -> None:
    everyone, server = first_round(small, [0, 1, 2, 3, 4, 5])
    reversed_order, same_server = first_round(small, [5, 4, 3, 2, 1, 0])
    fewer, _ = first_round(small, [4, 1])
    assert sorted(everyone) == sorted(reversed_order) == [0, 1, 2, 3, 4, 5] and sorted(fewer) == [1, 4]
    assert all(equal(everyone[client], reversed_order[client]) for client in everyone)
    assert all(equal(everyone[client], fewer[client]) for client in fewer)
    assert not equal(everyone[0], everyone[1])
    assert equal(dict(server.shared), dict(same_server.shared))


def testschedule_rate() -> None:
    """Two steps of warm-up, then a cosine from 1 over eight steps: half of it after four."""
    values = [rate_factor(step, 10, 0.2) for step in range(10)]
    assert values[:3] == [0.5, 1.0, 1.0]
    assert values[6] == pytest.approx(0.5) and values[9] == pytest.approx(0.0380602, abs=1e-6)
    assert [rate_factor(step, 2, 0.03) for step in range(2)] == [1.0, 1.0]
    assert rate_factor(0, 1, 0.0) == 1.0
