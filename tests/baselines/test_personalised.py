"""Ditto, FedPer, pFedMe and FedMosaic."""

import math

import pytest
import torch

from baselines.ditto import Ditto
from baselines.fedmosaic import FedMosaic
from baselines.fedper import FedPer
from baselines.pfedme import PFedMe
from pilot.methods.base import ClientInfo, Method, PhaseResult, ServerState, State, Update, select
from pilot.methods.robust import coordinate_median

CLIENTS = tuple(ClientInfo(client=k, task="vqa", tasks=("vqa",), seed=0) for k in range(4))
A, B = "connector.a", "text_adapter.b"


def state(a: float, b: float, group: str = "") -> State:
    return {f"{group}{A}": torch.tensor([float(a)]), f"{group}{B}": torch.tensor([[float(b)]])}


def plain(state: State) -> dict[str, float]:
    return {name: round(value.item(), 6) for name, value in state.items()}


def gradient(method: Method, theta: State, known: State) -> tuple[float, dict[str, float]]:
    """The penalty and its gradient."""
    trainable = {name: value.clone().requires_grad_() for name, value in theta.items()}
    penalty = method.penalty(trainable, known)
    assert penalty is not None
    penalty.backward()
    return penalty.item(), plain({n: value.grad for n, value in trainable.items() if value.grad is not None})


@pytest.mark.parametrize("method", [Ditto(), FedPer(), PFedMe(), FedMosaic()], ids=lambda method: method.name)
def test_every_client_has_a_model_of_its_own(method: Method) -> None:
    assert not method.single_model and sum(phase.share_of_steps for phase in method.phases(1)) == 1.0


def test_ditto_two_rounds_of_one_client_by_hand() -> None:
    method = Ditto(strength=0.5)
    shared, personal = method.phases(1)
    initial = state(1, 1)
    assert method.initial_state(shared, CLIENTS[0], {}, {}) == {}  # the initial model
    # Round 1: w^0 = (1, 1) becomes theta_k = (3, 5), which leaves; v_k starts at the initial model, becomes (2, 2).
    first = method.split_result(shared, CLIENTS[0], PhaseResult(initial, state(3, 5), {}, {}, 5))
    assert plain(first.shared) == plain(state(3, 5)) and plain(first.private) == plain(state(1, 1, "anchor."))
    assert method.initial_state(personal, CLIENTS[0], first.private, {}) == {}
    second = method.split_result(personal, CLIENTS[0], PhaseResult(initial, state(2, 2), first.private, {}, 5))
    assert second.shared == {}
    assert plain(second.private) == plain({**state(1, 1, "anchor."), **state(2, 2, "personal.")})
    # Round 2: w^1 = (8, 9) is received, and v_k does not take its place; the anchor is w^1, not what it trains to.
    assert plain(method.initial_state(shared, CLIENTS[0], second.private, state(8, 9))) == plain(state(8, 9))
    third = method.split_result(
        shared, CLIENTS[0], PhaseResult(state(8, 9), state(7, 7), second.private, state(8, 9), 5)
    )
    assert plain(third.shared) == plain(state(7, 7))
    assert plain(third.private) == plain({**state(8, 9, "anchor."), **state(2, 2, "personal.")})
    assert plain(method.initial_state(personal, CLIENTS[0], third.private, {})) == plain(state(2, 2))
    # 0.25 * ((4 - 8)^2 + (9 - 9)^2) = 4, gradient 0.5 * (-4, 0), at v = (4, 9); its own start (2, 2) does not count.
    known = {**state(2, 2), **select(third.private, personal.auxiliary)}
    assert gradient(method, state(4, 9), known) == (4.0, {A: -2.0, B: 0.0})


def test_ditto_global_phase_is_fedavg_and_the_personal_one_costs_nothing() -> None:
    # (1 * 2 + 3 * 6) / 4 = 5.
    method = Ditto()
    shared, personal = method.phases(1)
    assert method.final_phase(3) == personal and personal.shared == frozenset()
    assert method.penalty(state(1, 1), select({**state(0, 0), **state(0, 0, "anchor.")}, shared.trainable)) is None
    updates = [Update(0, "vqa", 1, state(2, 0)), Update(1, "vqa", 3, state(6, 0))]
    server = method.aggregate(shared, iter(updates), method.initial_server_state(state(1, 1), CLIENTS))
    assert plain(method.payload(server, CLIENTS[2], shared)) == plain(state(5, 0))
    assert method.payload(server, CLIENTS[2], personal) == {}
    server = method.aggregate(personal, iter([Update(0, "vqa", 1, {})]), server)
    assert plain(method.payload(server, CLIENTS[2], shared)) == plain(state(5, 0))
    with pytest.raises(ValueError, match="strength"):
        Ditto(strength=-1)


def test_fedper_keeps_the_connector() -> None:
    # LoRA: (1 * 2 + 3 * 6) / 4 = 5. The connector (7) stays, and comes back beside the received LoRA.
    method = FedPer()
    (phase,) = method.phases(1)
    split = method.split_result(phase, CLIENTS[0], PhaseResult(state(0, 0), state(7, 2), {}, {}, 5))
    assert plain(split.shared) == {B: 2.0} and plain(split.private) == {A: 7.0}
    updates = [Update(0, "vqa", 1, split.shared), Update(1, "vqa", 3, {B: torch.tensor([[6.0]])})]
    payload = method.payload(method.aggregate(phase, iter(updates), ServerState()), CLIENTS[0], phase)
    assert plain(method.initial_state(phase, CLIENTS[0], split.private, payload)) == plain(state(7, 5))


def test_pfedme_client_by_hand() -> None:
    # w = (1, 3), theta~ = (5, 1), eta lambda = 0.5 * 0.5 = 0.25: w_k = w + 0.25 * (4, -2) = (2, 2.5).
    method = PFedMe(strength=0.5, eta=0.5)
    (phase,) = method.phases(1)
    final = method.final_phase(2)
    assert final is not None and final.shared == frozenset()
    assert gradient(method, state(5, 1), state(1, 3)) == (5.0, {A: 2.0, B: -1.0})  # 0.25 * 20; 0.5 * (4, -2)
    split = method.split_result(
        phase, CLIENTS[0], PhaseResult(state(1, 3), state(5, 1), state(9, 9, "personal."), {}, 5)
    )
    assert plain(split.shared) == plain(state(2, 2.5))
    assert plain(split.private) == plain(state(5, 1, "personal."))
    # Training goes on from w, evaluation takes theta~; whoever has none has the initial model.
    assert plain(method.initial_state(phase, CLIENTS[0], split.private, state(6, 6))) == plain(state(6, 6))
    assert plain(method.initial_state(final, CLIENTS[0], split.private, {})) == plain(state(5, 1))
    assert (
        method.initial_state(phase, CLIENTS[0], split.private, {})
        == {}
        == method.initial_state(final, CLIENTS[0], {}, {})
    )


def test_pfedme_server_by_hand() -> None:
    # Unweighted mean of (2, 0) and (6, 2): (4, 1); w = (1, 1) + 0.5 * (3, 0) = (2.5, 1). Then (4.5, 3) alone:
    # w = (2.5, 1) + 0.5 * (2, 2) = (3.5, 2).
    method = PFedMe(beta=0.5)
    (phase,) = method.phases(1)
    server = method.initial_server_state(state(1, 1), CLIENTS)
    assert method.payload(server, CLIENTS[0], phase) == {}
    server = method.aggregate(phase, iter([Update(0, "vqa", 1, state(2, 0)), Update(1, "vqa", 9, state(6, 2))]), server)
    assert plain(method.payload(server, CLIENTS[3], phase)) == {A: 2.5, B: 1.0} and server.record == {"delta_norm": 3.0}
    server = method.aggregate(phase, iter([Update(2, "vqa", 4, state(4.5, 3))]), server)
    assert plain(method.payload(server, CLIENTS[3], phase)) == {A: 3.5, B: 2.0}
    assert method.payload(server, CLIENTS[3], method.final_phase(1)) == {}


@pytest.mark.parametrize(
    ("options", "option"), [({"strength": 0}, "strength"), ({"eta": 0}, "eta"), ({"beta": 0}, "beta")]
)
def test_pfedme_options_out_of_range(options: dict[str, float], option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option}"):
        PFedMe(**options)
    with pytest.raises(ValueError, match="at most 1 / strength, 0.5"):
        PFedMe(strength=2.0, eta=0.6)


def mosaic_round() -> tuple[FedMosaic, ServerState]:
    """From (1, 1): updates (2, 0), (1, 0) and (0, 3) of clients 0, 1 and 3."""
    method = FedMosaic()
    (phase,) = method.phases(1)
    server = method.initial_server_state(state(1, 1), CLIENTS)
    assert method.payload(server, CLIENTS[0], phase) == {}
    models = {0: state(3, 1), 1: state(2, 1), 3: state(1, 4)}
    return method, method.aggregate(phase, iter(Update(k, "vqa", 1 + k, s) for k, s in models.items()), server)


def test_fedmosaic_by_hand() -> None:
    # Cosines: 1 between clients 0 and 1, 0 to client 3. T = 0.5: shares e^2 / (e^2 + 1) = 0.880797 and 0.119203; client
    # 3 has a half of each. a = 0.5: client 0 has 0.5 * (3, 1) + 0.5 * (0.880797 * (2, 1) + 0.119203 * (1, 4)).
    method, server = mosaic_round()
    (phase,) = method.phases(1)
    near, far = math.e**2 / (math.e**2 + 1), 1 / (math.e**2 + 1)
    assert near == pytest.approx(0.880797, abs=1e-6)
    expected = {
        0: (1.5 + 0.5 * (2 * near + far), 0.5 + 0.5 * (near + 4 * far)),
        1: (1.0 + 0.5 * (3 * near + far), 0.5 + 0.5 * (near + 4 * far)),
        3: (0.5 + 0.5 * (1.5 + 1.0), 2.0 + 0.5 * (0.5 + 0.5)),
    }
    for client, (a, b) in expected.items():
        payload = method.payload(server, CLIENTS[client], phase)
        assert [payload[A].item(), payload[B].item()] == pytest.approx([a, b])
    assert method.payload(server, CLIENTS[2], phase) == {}
    assert server.record["clients"] == [0, 1, 3]
    assert server.record["similarities"] == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert [pytest.approx(row) for row in server.record["weights"]] == [[0, near, far], [near, 0, far], [0.5, 0.5, 0]]


def test_fedmosaic_counts_an_update_from_what_its_client_received() -> None:
    # Client 0 returns what it received plus (0, 1), client 2, there for the first time, (1, 1) plus (0, 1): cosine 1.
    method, server = mosaic_round()
    (phase,) = method.phases(2)
    received = method.payload(server, CLIENTS[0], phase)
    updates = [Update(0, "vqa", 1, {A: received[A], B: received[B] + 1}), Update(2, "vqa", 1, state(1, 2))]
    after = method.aggregate(phase, iter(updates), server)
    assert after.record["similarities"] == [pytest.approx([1, 1]), pytest.approx([1, 1])]
    assert after.per_client[1] == server.per_client[1]


def test_fedmosaic_alone_unmoved_and_with_a_robust_mean() -> None:
    method = FedMosaic()
    (phase,) = method.phases(1)
    server = method.initial_server_state(state(1, 1), CLIENTS)
    alone = method.aggregate(phase, iter([Update(1, "vqa", 1, state(4, 4))]), server)
    assert plain(alone.per_client[1]) == plain(state(4, 4))
    # Nobody moved: similarities 0, the others count alike.
    unmoved = method.aggregate(phase, iter(Update(k, "vqa", 1, state(1, 1)) for k in range(3)), server)
    assert unmoved.record["weights"][0] == [0.0, 0.5, 0.5]
    # Client 0 (1, 1) with the median of the others' 3, 5 and 1e6.
    updates = [Update(k, "vqa", 1, state(value, 1)) for k, value in enumerate([1, 3, 5, 1e6])]
    robust = method.aggregate(phase, iter(updates), server, coordinate_median)
    assert plain(robust.per_client[0]) == plain(state(3, 1))


@pytest.mark.parametrize(
    ("options", "option"), [({"temperature": 0}, "temperature"), ({"self_weight": 1.1}, "self_weight")]
)
def test_fedmosaic_options_out_of_range(options: dict[str, float], option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option}"):
        FedMosaic(**options)
