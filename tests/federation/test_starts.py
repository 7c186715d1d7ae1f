"""Where phases start, of every method: the server's reference, and what is private about the values at the start.

Training is replaced by noise, since only what a phase starts from counts.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.federation.assemble import make_participants, make_plan, privacy_json
from pilot.federation.client import PhaseTask, TrainingResult
from pilot.federation.driver import Driver
from pilot.federation.ledger import Ledger
from pilot.federation.phase_run import PhaseRun
from pilot.federation.spec import RunSpec
from pilot.federation.trainer import LocalTrainer
from pilot.federation.transport import LocalTransport
from pilot.io.seeding import seed_for
from pilot.methods.base import Phase, State, Update
from pilot.methods.blind import Blind
from pilot.methods.catalogue import METHODS
from pilot.methods.mixed_lora import QUESTION
from pilot.registry import method_class

from ..marks import few_of
from ..small import Small

FEW = ("pilot", "fedalt")
SENDING = [name for name in METHODS if method_class(name).exchanges and not issubclass(method_class(name), Blind)]
ROUNDS = 4
OPTIONS: dict[str, dict[str, Any]] = {"fedlease": {"warm_up": 2}}
"""Options with which a method has all its kinds of phases."""


@dataclass(frozen=True)
class Start:
    """What a message is measured from: its phase, the values on the client and those that the server computes."""

    phase: Phase
    values: State
    reference: State


def spec_of(few: Small, method: str, federation: dict[str, Any], rounds: int = ROUNDS) -> RunSpec:
    values = few.profile.model_dump() | {"federation": federation, "rounds": rounds, "method_options": OPTIONS}
    return RunSpec(few.scenario, Profile.model_validate(values), method, 0)


def noise(like: State, *purpose: str | int) -> State:
    source = torch.Generator().manual_seed(seed_for(*purpose))
    return {name: 0.1 * torch.randn(value.shape, generator=source) for name, value in like.items()}


def recorded(
    few: Small, method: str, fraction: float, world: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[tuple[int, int, int], Start]:
    """Starts of a run whose clients train something else in every world, but send the same in all of them."""
    spec = spec_of(few, method, {"participation": {"fraction": fraction}})
    plan = make_plan(spec, spec.make_method(), few.backbone, {k: len(v) for k, v in few.examples.items()})
    found: dict[tuple[int, int, int], Start] = {}

    def train(trainer: LocalTrainer, run: PhaseRun, checkpoint: None) -> State:
        task = run.task
        moved = noise(dict(run.trainable), world, task.round_number, task.info.client, task.phase.name)
        with torch.no_grad():
            for name, value in moved.items():
                run.trainable[name].add_(value)
        if task.phase.questions:
            run.recorder.add({}, {QUESTION: moved_questions(world, task, few)}, 0)
            run.recorder.close_step()
        for name, shape in ({} if task.phase.validates else task.phase.statistics).items():
            run.recorder.add({}, {name: torch.ones(shape)}, 0)
            run.recorder.close_step()
        return moved if task.phase.mean_gradients else {}

    def send(task: PhaseTask, trained: TrainingResult) -> Update:
        if not task.phase.shared:
            return trained.update
        reference = plan.template(task.phase, task.info, task.payload)
        key = task.round_number, task.phase_index, task.info.client
        found[key] = Start(task.phase, trained.received, reference)
        if task.phase.choices:
            return trained.update
        measured = {name: value.abs() for name, value in noise(trained.update.statistics, "measured", *key).items()}
        return replace(trained.update, state=noise(trained.update.state, "sent", *key), statistics=measured)

    monkeypatch.setattr(LocalTrainer, "_optimise", train)
    made = make_participants(
        spec, few.backbone, few.features, few.examples, lambda k: folder / world / str(k), few.validation
    )
    Driver(plan, LocalTransport(lambda k: replace(made(k), transform=send)), Ledger(1)).run(None)
    return found


def moved_questions(world: str, task: PhaseTask, few: Small) -> torch.Tensor:
    like = {QUESTION: torch.zeros(few.backbone.width)}
    return noise(like, world, task.round_number, task.info.client)[QUESTION]


def near(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of(FEW, SENDING))
def test_phases_start_where_they_say(few: Small, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts from messages and the seed is the same in two worlds, and only from one payload what the server has.

    Also for clients that join late. Each kind that a phase claims is seen: what it says it starts from, it does.
    """
    private, unknown = set[str](), set[str]()
    fractions = (1.0,) if method_class(method).asynchronous else (0.5, 1.0)
    for fraction in fractions:
        folder = tmp_path / str(fraction)
        one, other = (recorded(few, method, fraction, world, folder, monkeypatch) for world in ("one", "other"))
        assert one.keys() == other.keys() and one
        for key, start in one.items():
            kind = start.phase.starts_from
            if not start.phase.choices and not near(start.values, other[key].values):
                assert kind == "own training", key
                private.add(kind)
            if not near(start.values, start.reference):
                assert kind != "payload", key
                unknown.add(kind)
    kinds = {start.phase.starts_from for start in one.values()}
    assert private == kinds & {"own training"} and unknown == kinds - {"payload"}


PRIVATE = {"privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0}}
CLIPPED, KRUM = {"defence": {"clip_norm": 1.0}}, {"defence": {"aggregation": "multi_krum"}}
OWN = r"profile tiny: field federation\.privacy: phase .* starts from what the client has trained and never sent"
CLIP = r"profile tiny: field federation\.defence\.clip_norm: in phase .* of method {} start from values"


@pytest.mark.parametrize(
    ("method", "federation", "message"),
    [
        *((name, PRIVATE, OWN) for name in ("fedalt", "yoco_lite", "fedlease")),
        *((name, CLIPPED, CLIP.format(name)) for name in ("fedalt", "feddpa", "rolora", "lora_a2")),
        (
            "lora_a2",
            KRUM,
            r"federation\.defence\.aggregation: in phase train_b, clients of method lora_a2 send choices",
        ),
        *((name, PRIVATE | CLIPPED, "") for name in ("fedavg", "pilot")),
        *((name, PRIVATE | KRUM, "") for name in ("feddpa", "rolora")),
    ],
)
def test_what_is_measured_from_the_wrong_start_is_refused(
    few: Small, method: str, federation: dict[str, Any], message: str
) -> None:
    spec = spec_of(few, method, federation)
    if not message:
        make_plan(spec, spec.make_method(), few.backbone, dict.fromkeys(range(3), 8))
        return
    with pytest.raises(UserError, match=message):
        make_plan(spec, spec.make_method(), few.backbone, dict.fromkeys(range(3), 8))


@pytest.mark.parametrize(("method", "messages"), [("feddpa", 12), ("ditto", 12), ("pilot", 13)])
def test_only_messages_are_releases(few: Small, method: str, messages: int) -> None:
    """Twelve rounds, of two phases with FedDPA and Ditto, of which one sends; Pilot's first round sends twice.

    Client 1 answered in no phase of the last round.
    """
    spec = spec_of(few, method, PRIVATE, rounds=12)
    plan = make_plan(spec, spec.make_method(), few.backbone, dict.fromkeys(range(3), 8))
    history = [
        {"round": number, "phase": phase.name, "clients": [{"client": k} for k in range(3) if number < 12 or k != 1]}
        for number in range(1, 13)
        for phase in plan.method.phases(number)
    ]
    found = privacy_json(spec, plan, history)
    assert found is not None and found["releases"] == {"0": messages, "1": messages - 1, "2": messages}
