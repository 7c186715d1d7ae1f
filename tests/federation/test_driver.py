"""The server's side of a round, driven through a transport that returns what a test wants."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from baselines.fedavg import FedAvg
from pilot.federation.checkpoint import Progress
from pilot.federation.client import ClientReport, PhaseTask
from pilot.federation.driver import Driver
from pilot.federation.guard import reason_to_exclude
from pilot.federation.ledger import Ledger
from pilot.federation.participant import ClientFailure, ClientResult
from pilot.federation.participation import Participation, schedule
from pilot.federation.rounds import Plan, min_local_steps, split_steps
from pilot.federation.store import Version
from pilot.federation.transport import Answer
from pilot.methods.base import ClientInfo, Mean, Phase, ServerState, State, Update, weighted_mean

NUM_EXAMPLES = {0: 1, 1: 2, 2: 3, 3: 4}
EVERYBODY, FEDAVG = Participation(), FedAvg()
REPORT = ClientReport(2, {"total": [1.0, 0.5]}, {}, 7, {"connector": 6, "text_adapter": 2}, 8, 8)


def state(value: float) -> State:
    """A client's model: a connector (2, 3) and a text adapter (2,)."""
    return {"connector.w": torch.full((2, 3), value), "text_adapter.a": torch.tensor([value, -value])}


def update(client: int) -> Update:
    """Client k sends 10 ** k everywhere."""
    return Update(client, "task", NUM_EXAMPLES[client], state(10.0**client))


@dataclass
class Fake:
    """Returns prepared updates or failures; keeps the tasks it was given."""

    updates: dict[int, Update | ClientFailure]
    tasks: list[PhaseTask] = field(default_factory=list)
    parallel: bool = False

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        for task in tasks:
            self.tasks.append(task)
            answer = self.updates[task.info.client]
            if isinstance(answer, Update) and not task.phase.shared:
                answer = replace(answer, state={})
            version = Version(f"r{task.round_number}p{task.phase_index}", "0" * 64)
            yield answer if isinstance(answer, ClientFailure) else ClientResult(answer, REPORT, version, 0.5, 100.0)

    def verify(self, versions: Mapping[int, Version], wait: bool = True) -> str:
        return ""


def drive(
    updates: Sequence[Update | ClientFailure],
    quorum: int = 1,
    start: Progress | None = None,
    rounds: int = 1,
    participation: Participation = EVERYBODY,
    transport: Fake | None = None,
    method: FedAvg = FEDAVG,
) -> Progress:
    """Rounds of FedAvg with one client per update."""
    transport = transport or Fake({u.client: u for u in updates})
    updates = list(transport.updates.values())
    clients = [ClientInfo(u.client, "task", ("task",), 0) for u in updates]
    who = schedule(participation, [u.client for u in updates], rounds, 0)
    steps = dict.fromkeys(NUM_EXAMPLES, 2)
    plan = Plan(
        method,
        clients,
        NUM_EXAMPLES,
        rounds,
        steps,
        lambda phase, info, payload: state(0.0) if phase.shared else {},
        who,
        quorum,
    )
    return Driver(plan, transport, Ledger(1)).run(start)


def test_weighted_by_examples() -> None:
    """(1 * 1 + 2 * 10 + 3 * 100 + 4 * 1000) / 10 = 432.1."""
    shared = drive([update(client) for client in (2, 0, 3, 1)]).server.shared
    assert torch.allclose(shared["connector.w"], torch.full((2, 3), 432.1))
    assert torch.allclose(shared["text_adapter.a"], torch.tensor([432.1, -432.1]))


def changed(**values: Any) -> Update:
    """Client 2's update with other fields."""
    return replace(update(2), **values)


def with_connector(value: torch.Tensor) -> Update:
    """Client 2's update with another connector."""
    return changed(state={**state(100.0), "connector.w": value})


NOT_A_NUMBER, INFINITE = torch.full((2, 3), 100.0), torch.full((2, 3), 100.0)
NOT_A_NUMBER[1, 2], INFINITE[0, 0] = math.nan, -math.inf
BROKEN = {
    "nan": (with_connector(NOT_A_NUMBER), "connector.w: not finite"),
    "infinite": (with_connector(INFINITE), "connector.w: not finite"),
    "wrong name": (
        changed(state={"connector.w": torch.zeros(2, 3), "text_adapter.b": torch.zeros(2)}),
        "missing tensor text_adapter.a",
    ),
    "more names": (
        changed(state={**state(100.0), "connector.z": torch.zeros(1)}), "unexpected tensor connector.z"
    ),
    "missing name": (changed(state={"connector.w": torch.zeros(2, 3)}), "missing tensor text_adapter.a"),
    "nothing": (changed(state={}), "missing tensor connector.w"),
    "private": (
        changed(state={**state(100.0), "client_adapter.p": torch.zeros(1)}),
        "client_adapter.p may not leave the client",
    ),
    "wrong shape": (
        with_connector(torch.zeros(3, 2)), "connector.w: torch.float32 (3, 2), expected torch.float32 (2, 3)"
    ),
    "broadcastable shape": (
        with_connector(torch.zeros(1, 3)), "connector.w: torch.float32 (1, 3), expected torch.float32 (2, 3)"
    ),
    "scalar": (with_connector(torch.tensor(1.0)), "connector.w: torch.float32 (), expected torch.float32 (2, 3)"),
    "wrong dtype": (
        with_connector(torch.zeros(2, 3, dtype=torch.float64)),
        "connector.w: torch.float64 (2, 3), expected torch.float32 (2, 3)",
    ),
    "no weight": (changed(num_examples=0), "num_examples is 0, expected a positive number"),
    "negative weight": (changed(num_examples=-3), "num_examples is -3, expected a positive number"),
    "weight not a number": (changed(num_examples=math.nan), "num_examples is nan, expected a positive number"),
    "infinite weight": (changed(num_examples=math.inf), "num_examples is inf, expected a positive number"),
    "another weight": (changed(num_examples=300), "num_examples is 300, the client registered 3"),
    "another task": (changed(task="other"), "task is other, the client registered task"),
    "statistics": (changed(statistics={"losses": torch.zeros(2)}), "unexpected statistic losses"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_broken_update_is_left_out(case: str) -> None:
    """The others' mean: (1 * 1 + 2 * 10 + 4 * 1000) / 7 = 574.4286."""
    broken, reason = BROKEN[case]
    others = [update(0), update(1), update(3)]
    final, without = drive([*others, broken]), drive(others)
    assert final.server.shared.keys() == without.server.shared.keys()
    assert all(torch.equal(final.server.shared[name], without.server.shared[name]) for name in without.server.shared)
    assert torch.allclose(final.server.shared["connector.w"], torch.full((2, 3), 574.4286))
    row = final.history[0]
    assert row["excluded"] == [{"client": 2, "reason": reason}] and row["skipped"] is False
    assert sorted(final.versions) == [0, 1, 3], "what an excluded client trained does not count"
    json.dumps(final.history, allow_nan=False)


def test_missing_statistic_is_left_out() -> None:
    phase = Phase("search", frozenset(), frozenset({"connector", "text_adapter"}), statistics={"share": (2,)})
    assert reason_to_exclude(update(2), state(0.0), phase, "task", 3) == "missing statistic share"
    endless = changed(statistics={"share": torch.tensor([0.5, math.inf])})
    assert reason_to_exclude(endless, state(0.0), phase, "task", 3) == "share: not finite"
    assert reason_to_exclude(changed(statistics={"share": torch.ones(2)}), state(0.0), phase, "task", 3) == ""
    scalar = changed(statistics={"share": torch.ones(1)})
    assert reason_to_exclude(scalar, state(0.0), phase, "task", 3) == (
        "share: torch.float32 (1,), expected torch.float32 (2,)"
    )


def test_finite_numbers_whose_sum_is_not_are_accepted() -> None:
    """Two of 3e38 sum to infinity in float32."""
    phase = Phase("p", frozenset({"connector"}), frozenset({"connector"}))
    large = {"connector.w": torch.tensor([3e38, 3e38])}
    assert reason_to_exclude(Update(0, "task", 3, large), large, phase, "task", 3) == ""


def test_excluded_client_goes_on_from_what_it_had() -> None:
    own = Version("r0p0", "a" * 64)
    final = drive([update(0), changed(num_examples=0)], start=Progress(versions={2: own}))
    assert final.versions == {0: Version("r1p0", "0" * 64), 2: own} and final.previous == {2: own}


@pytest.mark.parametrize(("quorum", "skipped"), [(3, False), (4, True)])
def test_below_quorum_nothing_changes(quorum: int, skipped: bool) -> None:
    before = ServerState(state(-1.0), {}, {"kept": True})
    start = Progress(server=before)
    final = drive([update(0), update(1), update(3), changed(num_examples=0)], quorum, start)
    assert final.history[0]["skipped"] is skipped
    assert (final.server is before) is skipped and (final.versions == {}) is skipped
    assert final.history[0]["excluded"] == [
        {"client": 2, "reason": "num_examples is 0, expected a positive number"}
    ]  # fmt: skip


def test_newcomers_catch_up_alone_and_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client 2 has no private state: of its 2 steps one is for `early`, then all train; the server sees one phase."""
    early = Phase("early", frozenset({"connector"}), frozenset(), 0.5)
    late = replace(FedAvg().phases(1)[0], share_of_steps=0.5)
    monkeypatch.setattr(FedAvg, "newcomer_phases", lambda self, number: (early, late))
    known: dict[int, Version] = {client: Version("r1p0", "0" * 64) for client in (0, 1)}
    transport = Fake({k: update(k) for k in range(3)})
    final = drive([], start=Progress(versions=known), transport=transport, quorum=3)
    asked = [(t.info.client, t.phase.name, t.phase_index, t.steps) for t in transport.tasks]
    assert asked == [(2, "early", 0, 1), (0, "train", 1, 2), (1, "train", 1, 2), (2, "train", 1, 1)]
    assert [row["phase"] for row in final.history] == ["early", "train"]
    assert [row["skipped"] for row in final.history] == [False, False], "a quorum is for what is aggregated"
    alone = drive([update(k) for k in range(3)])
    assert torch.equal(final.server.shared["connector.w"], alone.server.shared["connector.w"])
    transport.tasks.clear()
    drive([], start=Progress(versions={**known, 2: known[0]}), transport=transport)
    assert [t.phase.name for t in transport.tasks] == ["train"] * 3


def test_ledger_counts_what_was_sent() -> None:
    """8 numbers of 4 bytes per client: up in both rounds, down in the second only; FLOPs 7 * (4 * 1 + 6 * 8)."""
    ledger = drive([update(client) for client in (0, 1)], rounds=2).ledger
    assert ledger["totals"] == {"bytes_up": 128, "bytes_down": 64}
    assert ledger["optimiser_steps"] == 8 and ledger["training_tokens"] == 28
    assert ledger["training_flops"] == 4 * 7 * 52
    assert [(m["round"], m["client"], m["direction"]) for m in ledger["messages"]] == [
        (1, 0, "up"), (1, 1, "up"), (2, 0, "down"), (2, 1, "down"), (2, 0, "up"), (2, 1, "up")
    ]  # fmt: skip
    assert ledger["messages"][2]["groups"] == {"connector": 24, "text_adapter": 8}


def test_steps_over_phases() -> None:
    half, rest = Phase("a", frozenset(), frozenset(), 0.5), Phase("b", frozenset(), frozenset(), 0.5)
    assert [steps for _, steps in split_steps([half, rest], 7)] == [3, 4]
    assert [steps for _, steps in split_steps([half], 7)] == [7]
    assert split_steps([], 7) == []
    assert (min_local_steps([half, rest]), min_local_steps([rest]), min_local_steps([])) == (2, 1, 1)


@dataclass(frozen=True, kw_only=True)
class TwoPhases(FedAvg):
    """Averaging after each of two phases, then a phase that sends nothing."""

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        (whole,) = super().phases(round_number)
        first, second = (replace(whole, name=name, share_of_steps=0.5) for name in ("first", "second"))
        return first, second, replace(whole, name="alone", shared=frozenset(), share_of_steps=0.0)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        return super().aggregate(phase, updates, server, mean) if phase.shared else server


@dataclass
class Flaky(Fake):
    """A client's answer is lost, or cannot be used, in the first phase of round 1 alone."""

    lost: Update | ClientFailure = field(default_factory=lambda: ClientFailure(2, "offline"))

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        for task, answer in zip(kept := list(tasks), super().exchange(kept, progress), strict=True):
            lost = task.info.client == 2 and (task.round_number, task.phase.name) == (1, "first")
            if lost and isinstance(self.lost, Update):
                assert isinstance(answer, ClientResult)
                answer = replace(answer, update=self.lost)
            yield self.lost if lost and isinstance(self.lost, ClientFailure) else answer


@pytest.mark.parametrize("lost", [ClientFailure(2, "offline"), BROKEN["nan"][0]], ids=["failed", "excluded"])
def test_a_client_lost_in_a_phase_is_left_out_of_the_rounds_later_ones(lost: Update | ClientFailure) -> None:
    """Of the next phase, which it would send from another model; not of one that sends nothing, nor of round 2."""
    transport = Flaky({k: update(k) for k in range(4)}, lost=lost)
    final = drive([], rounds=2, transport=transport, method=TwoPhases())
    asked = [(t.round_number, t.phase.name, t.info.client) for t in transport.tasks]
    for number, phase in ((1, "first"), (1, "second"), (1, "alone"), (2, "first"), (2, "second"), (2, "alone")):
        there = [client for client in range(4) if (number, phase, client) in asked]
        assert there == ([0, 1, 3] if (number, phase) == (1, "second") else [0, 1, 2, 3])
    reasons = [[(each["client"], each["reason"]) for each in row["excluded"]] for row in final.history]
    why = "offline" if isinstance(lost, ClientFailure) else BROKEN["nan"][1]
    assert reasons[:2] == [[(2, why)], [(2, "left out, as it has no valid result of an earlier phase of the round")]]
    assert reasons[2:] == [[], [], [], []]
    messages = [(m["round"], m["phase"], m["client"]) for m in final.ledger["messages"]]
    assert (1, "second", 2) not in messages and (2, "second", 2) in messages


def test_after_a_skipped_phase_the_round_is_over() -> None:
    """Two of four answer where three must: no client has a state from which the second phase could start."""
    lost = Fake({0: update(0), 1: update(1), 2: ClientFailure(2, "offline"), 3: ClientFailure(3, "offline")})
    final = drive([], quorum=3, transport=lost, method=TwoPhases())
    assert [row["skipped"] for row in final.history] == [True, True, True] and final.server.shared == {}
    assert [t.phase.name for t in lost.tasks] == ["first"] * 4 + ["alone"] * 4
