"""SCAFFOLD and FedDyn: clients' own state, and the server's."""

import pytest
import torch

from baselines.feddyn import FedDyn
from baselines.scaffold import Scaffold
from pilot.methods.base import ClientInfo, Method, Phase, PhaseResult, State, Update, select
from pilot.methods.robust import coordinate_median

CLIENTS = tuple(ClientInfo(client=k, task="vqa", tasks=("vqa",), seed=0) for k in range(4))
A, B = "connector.a", "text_adapter.b"


def state(a: float, b: float, group: str = "") -> State:
    return {f"{group}{A}": torch.tensor([float(a)]), f"{group}{B}": torch.tensor([[float(b)]])}


def plain(state: State) -> dict[str, float]:
    return {name: round(value.item(), 6) for name, value in state.items()}


def received(phase: Phase, start: State, stored: State, payload: State) -> State:
    """What the engine hands to `penalty`."""
    return {**start, **select({**stored, **payload}, phase.auxiliary)}


def gradient(method: Method, theta: State, known: State) -> dict[str, float]:
    trainable = {name: value.clone().requires_grad_() for name, value in theta.items()}
    penalty = method.penalty(trainable, known)
    assert penalty is not None
    penalty.backward()
    return plain({name: value.grad for name, value in trainable.items() if value.grad is not None})


def test_scaffold_corrects_the_gradient_by_c_minus_own() -> None:
    # c = (5, 2), c_k = (1, 7): c - c_k = (4, -5); the penalty at theta = (3, 10) is 4 * 3 - 5 * 10 = -38.
    method = Scaffold()
    (phase,) = method.phases(2)
    known = received(phase, state(0, 0), state(1, 7, "own_control."), {**state(0, 0), **state(5, 2, "control.")})
    penalty = method.penalty(state(3, 10), known)
    assert penalty.item() == -38.0
    assert gradient(method, state(3, 10), known) == {A: 4.0, B: -5.0}
    # Whoever has no c_k yet is corrected by c alone; in round 1 nobody is.
    assert gradient(method, state(3, 10), received(phase, state(0, 0), {}, state(5, 2, "control."))) == {A: 5, B: 2}
    assert gradient(method, state(3, 10), received(phase, state(0, 0), {}, {})) == {A: 0.0, B: 0.0}


def test_scaffold_client_over_two_rounds_by_hand() -> None:
    method = Scaffold()
    (phase,) = method.phases(1)
    # Round 1: no correction, so mean gradients (2, -1) are c_k+; the change from 0 is the same.
    first = method.split_result(phase, CLIENTS[0], PhaseResult(state(0, 0), state(3, 4), {}, {}, 5, state(2, -1)))
    assert plain(first.shared) == {**plain(state(3, 4)), **plain(state(2, -1, "control_change."))}
    assert plain(first.private) == plain(state(2, -1, "own_control."))
    # Round 2, c = (5, 2): corrected mean gradients (6, 6) are g + c - c_k = g + (3, 3), so c_k+ = g = (3, 3); the
    # change from (2, -1) is (1, 4). Neither c nor theta_g is kept.
    payload = {**state(3, 4), **state(5, 2, "control.")}
    second = method.split_result(
        phase, CLIENTS[0], PhaseResult(state(3, 4), state(8, 9), first.private, payload, 5, state(6, 6))
    )
    assert plain(second.shared) == {**plain(state(8, 9)), **plain(state(1, 4, "control_change."))}
    assert plain(second.private) == plain(state(3, 3, "own_control."))


def test_scaffold_option_two_for_sgd() -> None:
    # With SGD, K steps of rate r on g + c - c_k, theta_g - theta_k = K r mean(g + c - c_k), so that option II,
    # c_k - c + (theta_g - theta_k) / (K r), is the mean of g: three steps of 0.1 on g = (1, 2, 6) + 4 - 1.
    method, name = Scaffold(), "connector.a"
    (phase,) = method.phases(1)
    raw, c, own, rate = [1.0, 2.0, 6.0], 4.0, 1.0, 0.1
    end = 10.0 - sum(rate * (g + c - own) for g in raw)
    option_two = own - c + (10.0 - end) / (3 * rate)
    stored = {f"own_control.{name}": torch.tensor([own])}
    payload = {name: torch.tensor([10.0]), f"control.{name}": torch.tensor([c])}
    result = PhaseResult(
        {name: torch.tensor([10.0])}, {name: torch.tensor([end])}, stored, payload, 3, {name: torch.tensor([6.0])}
    )
    private = method.split_result(phase, CLIENTS[0], result).private
    assert private[f"own_control.{name}"].item() == pytest.approx(option_two) == pytest.approx(3.0)


def scaffold_update(client: int, count: int, theta: State, change: State) -> Update:
    return Update(
        client, "vqa", count, {**theta, **{f"control_change.{name}": value for name, value in change.items()}}
    )


def test_scaffold_server_by_hand() -> None:
    # N = 4, two present. Mean theta (4, 2) from (2, 0) and (6, 4), whatever the numbers of examples; theta_g (1, 1), so
    # Delta = (3, 1) and theta = (1, 1) + 0.5 * (3, 1) = (2.5, 1.5). Mean change (2, -2): c = 2 / 4 * (2, -2) = (1, -1).
    method = Scaffold(eta_g=0.5)
    (phase,) = method.phases(1)
    server = method.initial_server_state({**state(1, 1), **state(0, 0, "control_change.")}, CLIENTS)
    assert method.payload(server, CLIENTS[0], phase) == {}
    updates = [scaffold_update(0, 1, state(2, 0), state(1, -4)), scaffold_update(2, 99, state(6, 4), state(3, 0))]
    server = method.aggregate(phase, iter(updates), server)
    assert plain(method.payload(server, CLIENTS[1], phase)) == {
        A: 2.5,
        B: 1.5,
        f"control.{A}": 1.0,
        f"control.{B}": -1.0,
    }
    assert server.record == {"delta_norm": pytest.approx(10**0.5), "control_norm": pytest.approx(2**0.5)}
    # Then one present: it sends (4.5, 1.5), Delta (2, 0), and changes (8, 0); c = (1, -1) + 1 / 4 * (8, 0) = (3, -1).
    server = method.aggregate(phase, iter([scaffold_update(1, 5, state(4.5, 1.5), state(8, 0))]), server)
    assert plain(method.payload(server, CLIENTS[1], phase)) == {
        A: 3.5,
        B: 1.5,
        f"control.{A}": 3.0,
        f"control.{B}": -1.0,
    }


def test_scaffold_server_takes_a_robust_mean_of_models_and_changes() -> None:
    method = Scaffold()
    (phase,) = method.phases(1)
    sent = [(2, 4), (3, 8), (1e6, 1e6)]
    updates = [scaffold_update(k, 1, state(theta, 0), state(change, 0)) for k, (theta, change) in enumerate(sent)]
    server = method.aggregate(
        phase, iter(updates), method.initial_server_state(state(1, 1), CLIENTS), coordinate_median
    )
    # Medians 3 and 8; c = 3 / 4 * 8 = 6.
    assert plain(method.payload(server, CLIENTS[0], phase)) == {
        A: 3.0,
        B: 0.0,
        f"control.{A}": 6.0,
        f"control.{B}": 0.0,
    }


def test_scaffold_what_leaves_and_what_stays() -> None:
    (phase,) = Scaffold().phases(1)
    assert phase.mean_gradients and phase.shared == {"connector", "text_adapter", "control_change"}
    untrained = Scaffold().split_result(
        phase, CLIENTS[0], PhaseResult(state(1, 1), state(1, 1), {}, {}, 1, state(0, 0))
    )
    assert not select(untrained.shared, {"own_control", "control"})
    with pytest.raises(ValueError, match="eta_g"):
        Scaffold(eta_g=0)


def test_feddyn_penalty_and_its_gradient_by_hand() -> None:
    # alpha = 0.5, theta_g = (1, 2), theta = (3, 2), h_k = (4, 10): 0.25 * 4 - (4 * 3 + 10 * 2) = -31; the gradient is
    # 0.5 * (2, 0) - (4, 10) = (-3, -10). Without h_k: 1 and (1, 0).
    method = FedDyn(alpha=0.5)
    (phase,) = method.phases(1)
    known = received(phase, state(1, 2), state(4, 10, "own_dynamic."), {})
    assert method.penalty(state(3, 2), known).item() == -31.0
    assert gradient(method, state(3, 2), known) == {A: -3.0, B: -10.0}
    assert method.penalty(state(3, 2), state(1, 2)).item() == 1.0
    assert gradient(method, state(3, 2), state(1, 2)) == {A: 1.0, B: 0.0}


def test_feddyn_client_over_two_rounds_by_hand() -> None:
    # alpha = 0.5. Round 1: h_k = -0.5 * ((5, 1) - (1, 3)) = (-2, 1). Round 2: h_k = (-2, 1) - 0.5 * (2, 2) = (-3, 0).
    method = FedDyn(alpha=0.5)
    (phase,) = method.phases(1)
    first = method.split_result(phase, CLIENTS[0], PhaseResult(state(1, 3), state(5, 1), {}, {}, 5))
    assert plain(first.shared) == plain(state(5, 1))
    assert plain(first.private) == plain(state(-2, 1, "own_dynamic."))
    second = method.split_result(
        phase, CLIENTS[0], PhaseResult(state(0, 0), state(2, 2), first.private, state(0, 0), 5)
    )
    assert plain(second.private) == plain(state(-3, 0, "own_dynamic."))


def test_feddyn_server_by_hand() -> None:
    # alpha = 0.5, N = 4, theta_g = (1, 1). Round 1: (3, 1) and (7, 1) present, mean (5, 1), sum of changes (8, 0):
    # h = -0.5 / 4 * (8, 0) = (-1, 0), theta = (5, 1) + (1, 0) / 0.5 = (7, 1).
    # Round 2: (9, 5) alone, change (2, 4): h = (-1, 0) - 0.125 * (2, 4) = (-1.25, -0.5), theta = (11.5, 6).
    method = FedDyn(alpha=0.5)
    (phase,) = method.phases(1)
    server = method.initial_server_state(state(1, 1), CLIENTS)
    assert method.payload(server, CLIENTS[0], phase) == {}
    updates = [Update(0, "vqa", 1, state(3, 1)), Update(3, "vqa", 50, state(7, 1))]
    server = method.aggregate(phase, iter(updates), server)
    assert plain(method.payload(server, CLIENTS[0], phase)) == {A: 7.0, B: 1.0}
    assert server.record == {"delta_norm": 4.0, "dynamic_norm": 1.0}
    server = method.aggregate(phase, iter([Update(1, "vqa", 2, state(9, 5))]), server)
    assert plain(method.payload(server, CLIENTS[0], phase)) == {A: 11.5, B: 6.0}


def test_feddyn_checks_alpha() -> None:
    with pytest.raises(ValueError, match="alpha"):
        FedDyn(alpha=0)
