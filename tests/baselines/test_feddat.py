"""FedDAT: its two phases and teachers, what it keeps, and the distillation loss by hand."""

import pytest
import torch
from torch import Tensor

from baselines.feddat import FedDat
from pilot.connector.dual import DualConnector
from pilot.connector.projector import Projector
from pilot.methods.base import ClientInfo, Phase, PhaseResult, ServerState, State, Update

A, B, C, P = "text_adapter.q.lora_A", "text_adapter.q.lora_B", "connector.a", "private_connector.a"
D, GATE = "offset.q.weight", "gate.weight"
CLIENT = ClientInfo(client=0, task="vqa", tasks=("vqa",), seed=0)
METHOD = FedDat()
SHARED, PRIVATE = METHOD.phases(1)


def tensors(**numbers: float) -> State:
    """Tensors of one number, by the names above."""
    names = {"a": A, "b": B, "c": C, "p": P, "d": D}
    return {names[key]: torch.tensor([[value]]) for key, value in numbers.items()}


def numbers(state: State) -> dict[str, object]:
    return {name: value.squeeze().tolist() for name, value in state.items()}


def teacher_of(phase: Phase, received: State) -> State:
    """The parameters with which the method asks for the teacher's logits."""
    asked: list[State] = []

    def logits_of(state: State) -> Tensor:
        asked.append(state)
        return torch.zeros(1, 2)

    METHOD.distillation(phase, torch.zeros(1, 2), received, logits_of)
    (teacher,) = asked
    return teacher


def test_phases() -> None:
    assert [phase.name for phase in METHOD.phases(3)] == ["shared", "private"]
    assert [phase.share_of_steps for phase in (SHARED, PRIVATE)] == [0.5, 0.5]
    assert SHARED.trainable == SHARED.shared == {"text_adapter", "connector"}
    assert PRIVATE.trainable == {"text_adapter", "private_connector"} and not PRIVATE.shared
    assert SHARED.distils and PRIVATE.distils and METHOD.offsets and not METHOD.single_model
    assert METHOD.name == "feddat"
    final = METHOD.final_phase(3)
    assert not final.trainable and not final.shared


def test_only_the_shared_connector_speaks_in_phase_shared() -> None:
    phases = (SHARED, PRIVATE, METHOD.final_phase(1))
    connectors = [METHOD.make_connector(phase, CLIENT, Projector(3, 4)) for phase in phases]
    gates = []
    for connector in connectors:
        assert isinstance(connector, DualConnector)
        gates.append(connector.gate.weight.tolist())
    assert gates == [[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]]


def test_the_distillation_loss_by_hand() -> None:
    # Teacher's logits 3 (ln 3, 0): softmax at T = 3 is (3/4, 1/4); the student's (0, 0): (1/2, 1/2).
    # KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.304099 - 0.173287 = 0.130812, times 9 = 1.177310. The second token agrees: mean
    # 0.588655. Gradient on the student: T^2 * 1/2 * (1/T) (q - p) = 3/2 * (1/2 - 3/4, 1/2 - 1/4) = (-0.375, 0.375).
    student = torch.zeros(2, 2, requires_grad=True)
    teacher = torch.tensor([[3 * 1.0986123, 0.0], [0.0, 0.0]])
    received = {GATE: torch.tensor([1.0, 0.0]), **tensors(a=1.0, b=0.0, c=0.0)}
    loss = METHOD.distillation(SHARED, student, received, lambda state: teacher)
    assert loss.item() == pytest.approx(0.588655, abs=1e-5)
    loss.backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.tensor([[-0.375, 0.375], [0.0, 0.0]]))
    # KL is not symmetric: the other way round it is 1/2 ln(2/3) + 1/2 ln 2 = 0.143841, times 9 / 2 = 0.647284.
    other = METHOD.distillation(SHARED, teacher, received, lambda state: torch.zeros(2, 2))
    assert other.item() == pytest.approx(0.647284, abs=1e-5)


def test_the_temperature_is_an_option() -> None:
    # At T = 1 the teacher (ln 3, 0) gives the same 0.130812.
    teacher = torch.tensor([[1.0986123, 0.0]])
    received = {GATE: torch.ones(2), **tensors(a=1.0, b=0.0, c=0.0)}
    loss = FedDat(temperature=1.0).distillation(SHARED, torch.zeros(1, 2), received, lambda state: teacher)
    assert loss.item() == pytest.approx(0.130812, abs=1e-5)
    with pytest.raises(ValueError, match="temperature"):
        FedDat(temperature=0.0)


def test_a_client_without_a_private_adapter_has_a_teacher_of_the_shared_one() -> None:
    # Received: B A = 3 * 4: offset 6 = half of it; the private LoRA has B = 0.
    received = {GATE: torch.tensor([1.0, 0.0]), **tensors(a=4.0, b=3.0, c=5.0, p=7.0, d=0.0)}
    assert numbers(teacher_of(SHARED, received)) == {A: 4.0, B: 0.0, C: 5.0, D: 6.0, GATE: [0.5, 0.5]}


def test_a_round_by_hand() -> None:
    # Shared phase, round 2: received (A 4, B 3, connector 5), stored private adapter (A 8, B/2 9, connector 7).
    stored = {f"private_adapter.{A}": torch.tensor([[8.0]]), f"private_adapter.{B}": torch.tensor([[9.0]])}
    stored |= tensors(p=7.0)
    payload = METHOD.payload(ServerState(tensors(a=4.0, b=3.0, c=5.0)), CLIENT, SHARED)
    start = METHOD.initial_state(SHARED, CLIENT, stored, payload)
    assert numbers(start) == {P: 7.0, A: 4.0, B: 3.0, C: 5.0}

    # Its teacher: offset 3 * 4 / 2 = 6 under the private pair, connector as received, gate halves.
    start |= {D: torch.zeros(1, 1), GATE: torch.tensor([1.0, 0.0])}
    teacher = teacher_of(SHARED, start | stored)
    gated = {A: 8.0, B: 9.0, C: 5.0, D: 6.0, GATE: [0.5, 0.5]}
    assert numbers(teacher) == gated

    # Training makes the shared adapter (A 40, B 30, connector 50), and that is what leaves.
    end = {**start, **tensors(a=40.0, b=30.0, c=50.0)}
    first = METHOD.split_result(SHARED, CLIENT, PhaseResult(start, end, stored, payload, 1))
    assert numbers(first.shared) == {A: 40.0, B: 30.0, C: 50.0}
    server = METHOD.aggregate(
        SHARED, [Update(0, "vqa", 1, first.shared), Update(1, "vqa", 3, tensors(a=0.0, b=2.0, c=10.0))], ServerState()
    )
    # (1 * 40 + 0) / 4 = 10, (30 + 3 * 2) / 4 = 9, (50 + 3 * 10) / 4 = 20
    assert numbers(server.shared) == {A: 10.0, B: 9.0, C: 20.0}

    # Private phase: nothing comes; the model is the gated one of before, on the adapter received at the round's start.
    assert METHOD.payload(server, CLIENT, PRIVATE) == {}
    start = METHOD.initial_state(PRIVATE, CLIENT, first.private, {})
    assert numbers(start) == {P: 7.0, **{name: value for name, value in gated.items() if name != GATE}}
    # Its teacher is the locally trained shared adapter, alone.
    start |= {GATE: torch.tensor([0.5, 0.5])}
    kept = {name: value for name, value in first.private.items() if name.split(".")[0] in PRIVATE.auxiliary}
    assert numbers(teacher_of(PRIVATE, start | kept)) == {A: 40.0, B: 30.0, C: 50.0, D: 0.0, GATE: [1.0, 0.0]}

    # Training makes the private adapter (A 80, B/2 90, connector 70); nothing leaves, the server stays.
    end = {**start, **tensors(a=80.0, b=90.0, p=70.0)}
    second = METHOD.split_result(PRIVATE, CLIENT, PhaseResult(start, end, first.private, {}, 1))
    assert second.shared == {}
    after = METHOD.aggregate(PRIVATE, iter([Update(0, "vqa", 1, {})]), server)
    assert after.shared == server.shared

    # Evaluated: the private adapter on the newest shared one, offset 9 * 10 / 2 = 45.
    final = METHOD.final_phase(2)
    model = METHOD.initial_state(final, CLIENT, second.private, METHOD.payload(after, CLIENT, final))
    assert numbers(model) == {P: 70.0, A: 80.0, B: 90.0, C: 20.0, D: 45.0}
    # The next round trains the shared adapter as sent, and distils from the new private one.
    start = METHOD.initial_state(SHARED, CLIENT, second.private, METHOD.payload(after, CLIENT, SHARED))
    assert numbers(start) == {P: 70.0, A: 10.0, B: 9.0, C: 20.0}
    start |= {D: torch.zeros(1, 1), GATE: torch.tensor([1.0, 0.0])}
    kept = {name: value for name, value in second.private.items() if name.startswith("private_adapter.")}
    assert numbers(teacher_of(SHARED, start | kept)) == {A: 80.0, B: 90.0, C: 20.0, D: 45.0, GATE: [0.5, 0.5]}


def test_round_1_starts_from_the_seed_and_needs_no_payload() -> None:
    assert METHOD.payload(ServerState(), CLIENT, SHARED) == {} == METHOD.initial_state(SHARED, CLIENT, {}, {})
    start = {**tensors(a=4.0, b=0.0, c=5.0, p=5.0, d=0.0), GATE: torch.tensor([1.0, 0.0])}
    end = {**start, **tensors(a=40.0, b=30.0, c=50.0)}
    private = METHOD.split_result(SHARED, CLIENT, PhaseResult(start, end, {}, {}, 1)).private
    # No private pair is stored: the model's own start (A from the seed, B zero) stays in the private phase.
    assert numbers(METHOD.initial_state(PRIVATE, CLIENT, private, {})) == {C: 5.0, D: 0.0}


def test_without_its_teacher_the_private_phase_does_without_distillation() -> None:
    def never(state: State) -> Tensor:
        raise AssertionError("there is no teacher to ask")

    received = {GATE: torch.tensor([0.5, 0.5]), **tensors(a=1.0, b=0.0, d=0.0)}
    assert METHOD.distillation(PRIVATE, torch.ones(2, 3), received, never).item() == 0.0
