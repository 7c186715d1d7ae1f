"""Every method goes on after rounds that were skipped: with the driver, on a miniature, with simulated training."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from pilot.federation.client import ClientReport, PhaseTask
from pilot.federation.driver import Driver
from pilot.federation.ledger import Ledger
from pilot.federation.participant import ClientResult
from pilot.federation.participation import RoundSchedule
from pilot.federation.rounds import Plan
from pilot.federation.store import Version
from pilot.io.seeding import seed_for
from pilot.methods.base import ClientInfo, Method, Phase, PhaseResult, State, Update, group_of, select, untrained_state
from pilot.methods.catalogue import METHODS
from pilot.methods.mixed_lora import OWN, OWN_QUESTIONS, mixed_state
from pilot.plan.architecture import Architecture
from pilot.plan.miniature import Miniature
from pilot.registry import make_method, method_class

TASKS = ("one", "two")
CLIENTS = [ClientInfo(k, TASKS[k % 2], TASKS, 0) for k in range(4)]
PRESENT = {1: (0, 1, 2), 2: (0, 1, 2), 3: (0, 2, 3), 4: (0, 1, 2, 3)}
ROUNDS, QUORUM = len(PRESENT), 3
SIZES = Architecture(
    text_layers=1, text_hidden=4, text_intermediate=6, text_heads=2, text_kv_heads=1, vision_hidden=3
)  # fmt: skip
REPORT = ClientReport(1, {}, {}, 1, {}, 1, 1)


def can_skip(name: str) -> bool:
    """Rounds of other methods have no quorum, or only one client, or nothing to train."""
    made = method_class(name)
    return not (made.asynchronous or made.pooled) and bool(make_method(name, {}).phases(1))


SKIPPED: list[tuple[str, dict[str, Any], set[int]]] = [
    *((name, {}, {1}) for name in METHODS if can_skip(name)),
    ("fedlease", {"warm_up": 2}, {2}), ("fedlease", {"warm_up": 2}, {1, 2}), ("taskavg_plus", {"gap_text": True}, {1}),
]  # fmt: skip


@dataclass
class Simulated:
    """Clients that move what they train at random; `starts` has what each phase of each started from."""

    method: Method
    miniature: Miniature
    starts: list[tuple[PhaseTask, State]] = field(default_factory=list)
    kept: dict[tuple[int, str], State] = field(default_factory=dict)
    parallel: bool = False

    def start(self, phase: Phase, info: ClientInfo, stored: State, payload: State) -> State:
        small, method = self.miniature, self.method
        connector = method.make_connector(phase, info, small.projector, payload)
        own = {name: value.detach() for name, value in connector.named_parameters()} | small.text_adapter
        own |= mixed_state(small.text_adapter, method.mixture(phase, payload), small.width, phase.questions)
        own |= small.offsets if method.offsets else {}
        own |= small.language if method.trains_language else {}
        values = method.initial_state(phase, info, stored, payload)
        return {name: values.get(name, value) for name, value in own.items()}

    def template(self, phase: Phase, info: ClientInfo, payload: State) -> State:
        return untrained_state(self.method, phase, info, self.start(phase, info, {}, payload), {}, payload)

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[ClientResult]:
        for task in tasks:
            phase, client = task.phase, task.info.client
            stored = self.kept[client, task.base.name] if task.base else {}
            start = self.start(phase, task.info, stored, task.payload)
            self.starts.append((task, start))
            source = torch.Generator().manual_seed(seed_for("skipped", task.round_number, task.phase_index, client))
            trained = select(start, phase.trainable | {OWN_QUESTIONS})
            end = start | {n: v + 0.1 * torch.randn(v.shape, generator=source) for n, v in trained.items()}
            gradients = {name: end[name] - start[name] for name in trained} if phase.mean_gradients else {}
            split = self.method.split_result(
                phase, task.info, PhaseResult(start, end, stored, task.payload, 1, gradients)
            )
            statistics = {name: torch.ones(shape) for name, shape in phase.statistics.items()}
            version = Version(f"r{task.round_number}p{task.phase_index}", "0" * 64) if split.private else None
            if version:
                self.kept[client, version.name] = split.private
            yield ClientResult(
                Update(client, task.info.task, client + 1, split.shared, statistics), REPORT, version, 0.0, 0.0
            )

    def verify(self, versions: Mapping[int, Version], wait: bool = True) -> str:
        return ""


def rounds(skipped: Collection[int]) -> list[RoundSchedule]:
    """A skipped round 1 has two clients, fewer than the quorum; a later one has none."""
    present = {number: () if number in skipped else clients for number, clients in PRESENT.items()}
    present[1] = (0, 1) if 1 in skipped else PRESENT[1]
    return [RoundSchedule(number, clients, (), {}, (), (), clients) for number, clients in present.items()]


@pytest.mark.parametrize(
    ("name", "options", "skipped"), SKIPPED, ids=[f"{n}{'+'.join(o)}-{'-'.join(map(str, s))}" for n, o, s in SKIPPED]
)
def test_a_run_goes_on_from_something_that_can_be_trained(
    name: str, options: dict[str, Any], skipped: set[int]
) -> None:
    """No update is refused; a LoRA in training never starts with both factors zero, where no gradient flows."""
    method = make_method(name, options).for_rounds(ROUNDS)
    world = Simulated(method, Miniature(SIZES, 2, len(CLIENTS)))
    plan = Plan(
        method, CLIENTS, {k: k + 1 for k in range(4)}, ROUNDS, dict.fromkeys(range(4), 4), world.template,
        rounds(skipped), QUORUM,
    )  # fmt: skip
    progress = Driver(plan, world, Ledger(1)).run(None)
    assert {row["round"] for row in progress.history if row["skipped"]} == skipped
    refused = {each["reason"] for row in progress.history for each in row["excluded"] if row["round"] not in skipped}
    assert not refused and world.starts
    later = {each["reason"] for row in progress.history for each in row["excluded"]}
    assert later <= {"left out, as it has no valid result of an earlier phase of the round"}
    for task, start in world.starts:
        for a in (each for each in start if each.startswith(f"{OWN}.") and each.endswith("lora_A")):
            if any(group_of(each) == OWN for each in task.phase.trainable):
                where = (task.round_number, task.phase.name, task.info.client, a)
                assert start[a].any() or start[a.replace("lora_A", "lora_B")].any(), where
    final = method.final_phase(ROUNDS)
    assert final is not None
    for info in CLIENTS:
        version = progress.versions.get(info.client)
        stored = world.kept[info.client, version.name] if version else {}
        answers = world.start(final, info, stored, method.payload(progress.server, info, final))
        assert all(bool(torch.isfinite(value).all()) for value in answers.values())
