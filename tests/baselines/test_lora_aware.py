"""FFA-LoRA, FedSA-LoRA, FlexLoRA, HetLoRA, FLoRA, FedEx-LoRA, and Pilot with an averaged text adapter, by hand."""

import json
from typing import Any

import pytest
import torch

from baselines.fedex_lora import FedExLora
from baselines.fedsa_lora import FedSaLora
from baselines.ffa_lora import FfaLora
from baselines.flexlora import FlexLora
from baselines.flora import Flora
from baselines.hetlora import HetLora
from baselines.pilot_fedavg_text import PilotFedAvgText
from pilot.federation.defence import Defence
from pilot.federation.training import client_models
from pilot.methods import averaging
from pilot.methods.base import ClientInfo, Method, PhaseResult, ServerState, State, Update, select
from pilot.methods.ranks import FULL, OWN, HeterogeneousRanks
from pilot.methods.robust import coordinate_median

from ..small import Small

A, B, C = "text_adapter.q.lora_A", "text_adapter.q.lora_B", "connector.a"
D = "offset.q.weight"
TASKS = ("vqa", "caption")
CLIENTS = [ClientInfo(client=k, task=TASKS[k % 2], tasks=TASKS, seed=0) for k in range(4)]


def lora(a: Any, b: Any, connector: float = 0.0) -> State:
    return {A: torch.tensor(a), B: torch.tensor(b), C: torch.tensor([connector])}


def update(client: int, count: int, state: State) -> Update:
    return Update(client, TASKS[client % 2], count, state)


def lists(state: State) -> dict[str, Any]:
    return {name: value.tolist() for name, value in state.items()}


def sent(method: Method, client: int, payload: State, end: State, stored: State | None = None) -> State:
    (phase,) = method.phases(1)
    return method.split_result(phase, CLIENTS[client], PhaseResult(end, end, stored or {}, payload, 1)).shared


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (FfaLora(), "ffa_lora"), (FedSaLora(), "fedsa_lora"), (FlexLora(), "flexlora"), (HetLora(), "hetlora"),
        (Flora(), "flora"), (FedExLora(), "fedex_lora"), (PilotFedAvgText(), "pilot_fedavg_text"),
    ],
)  # fmt: skip
def test_methods_are_named_as_their_files_and_give_each_round_all_its_steps(method: Method, name: str) -> None:
    assert method.name == name == type(method).__module__.removeprefix("baselines.")
    for number in (1, 2):
        assert sum(phase.share_of_steps for phase in method.phases(number)) == 1


def test_ffa_lora_trains_and_averages_b_and_leaves_a() -> None:
    method = FfaLora()
    (phase,) = method.phases(1)
    assert phase.trainable == phase.shared == {"text_adapter:lora_B", "connector"}
    first = sent(method, 0, {}, lora([[9.0]], [[2.0]], 1.0))
    second = sent(method, 1, {}, lora([[9.0]], [[6.0]], 5.0))
    # B: (1 * 2 + 3 * 6) / 4 = 5; connector: (1 * 1 + 3 * 5) / 4 = 4; A does not travel.
    server = method.aggregate(phase, [update(0, 1, first), update(1, 3, second)], ServerState())
    assert lists(method.payload(server, CLIENTS[0], phase)) == {B: [[5.0]], C: [4.0]}
    assert method.single_model


def test_fedsa_lora_averages_a_and_keeps_b_on_the_client() -> None:
    method = FedSaLora()
    (phase,) = method.phases(1)
    assert phase.trainable == phase.shared | {"text_adapter:lora_B"} and not method.single_model
    result = [PhaseResult({}, lora([[a]], [[b]], c), {}, {}, 1) for a, b, c in ((2.0, 7.0, 1.0), (6.0, 8.0, 5.0))]
    splits = [method.split_result(phase, CLIENTS[k], result[k]) for k in range(2)]
    updates = [update(0, 1, splits[0].shared), update(1, 3, splits[1].shared)]
    # A: (1 * 2 + 3 * 6) / 4 = 5; connector 4; B stays 7 and 8.
    payload = method.payload(method.aggregate(phase, updates, ServerState()), CLIENTS[0], phase)
    assert lists(payload) == {A: [[5.0]], C: [4.0]}
    arrived = [method.initial_state(phase, CLIENTS[k], splits[k].private, payload) for k in range(2)]
    assert [lists(state) for state in arrived] == [{A: [[5.0]], B: [[b]], C: [4.0]} for b in (7.0, 8.0)]
    # In the next round it keeps its new B, though it now starts with a payload and a stored state.
    after = method.split_result(
        phase, CLIENTS[0], PhaseResult({}, lora([[1.0]], [[3.0]]), splits[0].private, payload, 1)
    )
    assert lists(after.private) == {B: [[3.0]]} and after.shared.keys() == {A, C}


INITIAL = lora([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], [[0.0] * 4] * 3)


@pytest.mark.parametrize("method", [FlexLora(), HetLora()])
def test_clients_hold_the_first_rows_of_their_rank(method: HeterogeneousRanks) -> None:
    # Rank 4; a quarter, a half and all of it, and the fourth client has a quarter again.
    (phase,) = method.phases(1)
    initial = sent(method, 0, method.payload(ServerState(), CLIENTS[0], phase), INITIAL)
    assert lists(initial) == lists(INITIAL)
    server = method.initial_server_state(initial, CLIENTS)
    payloads = [method.payload(server, info, phase) for info in CLIENTS]
    assert [int(payload[OWN]) for payload in payloads] == [1, 2, 4, 1]
    assert lists(payloads[1]) == {A: [[1.0, 2.0], [3.0, 4.0]], OWN: [2.0], FULL: [4.0]}
    arrived = method.initial_state(phase, CLIENTS[1], {B: torch.ones(3, 4)}, payloads[1])
    assert lists(arrived) == {A: [[1.0, 2.0], [3.0, 4.0], [0.0, 0.0], [0.0, 0.0]]}  # B is zero before round 1
    end = {**arrived, B: torch.tensor([[1.0, 2.0, 0.0, 0.0]] * 3), C: torch.ones(1)}
    assert lists(sent(method, 1, payloads[1], end)) == {
        A: [[1.0, 2.0], [3.0, 4.0]], B: [[1.0, 2.0]] * 3, C: [1.0],
    }  # fmt: skip


def test_rows_that_are_zero_in_both_factors_get_no_gradient() -> None:
    method = FlexLora(ranks=(0.5,))
    (phase,) = method.phases(1)
    server = method.initial_server_state(INITIAL, CLIENTS)
    server = ServerState({**server.shared, **lora([[1.0, 2.0]] * 4, [[1.0] * 4] * 3)}, server.per_client)
    arrived = method.initial_state(phase, CLIENTS[0], {}, method.payload(server, CLIENTS[0], phase))
    a, b = arrived[A].requires_grad_(), arrived[B].requires_grad_()
    (b @ a).square().sum().backward()
    assert a.grad is not None and b.grad is not None
    assert a.grad[:2].abs().min() > 0 and not a.grad[2:].any()
    assert b.grad[:, :2].abs().min() > 0 and not b.grad[:, 2:].any()


def test_equal_ranks_send_the_whole_adapter() -> None:
    method = FlexLora(ranks=(1.0,))
    (phase,) = method.phases(1)
    server = method.initial_server_state(INITIAL, CLIENTS)
    assert [int(method.payload(server, info, phase)[OWN]) for info in CLIENTS] == [4] * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flexlora", "hetlora"])
def test_trained_clients_stay_at_their_rank(small: Small, name: str) -> None:
    # The small profile has rank 8: clients 0..5 hold 2, 4, 8, 2, 4, 8 rows, which AdamW moves, and zeros below.
    run = small.run(name)
    rows = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert [row["excluded"] for row in rows] == [[], []]
    models = client_models(small.spec(name), small.backbone, run)
    for (client,), load in models.items():
        rank = (2, 4, 8)[client % 3]
        state = select(load().state(), {"text_adapter"})
        for value in (value if name.endswith("lora_A") else value.T for name, value in state.items()):
            assert value.shape[0] == 8 and value[:rank].any(dim=1).all() and not value[rank:].any()


START = lora([[1.0, 0.0], [0.5, 0.5]], [[0.0, 0.0], [0.0, 0.0]])


def test_flexlora_factorises_the_mean_product() -> None:
    method = FlexLora(ranks=(0.5, 1.0))
    (phase,) = method.phases(1)
    server = method.initial_server_state(START, CLIENTS[:2])
    updates = [
        update(0, 1, lora([[16.0, 0.0]], [[1.0], [0.0]], 2.0)),
        update(1, 3, lora([[0.0, -1.0], [5.0, 5.0]], [[0.0, 0.0], [-12.0, 0.0]], 6.0)),
    ]
    # W = 1/4 diag(16, 0) + 3/4 diag(0, 12) = diag(4, 9): singular values 9 (second axis) and 4 (first), square roots
    # 3 and 2, left vectors positive. The connector: (1 * 2 + 3 * 6) / 4 = 5.
    after = method.aggregate(phase, updates[::-1], server)
    full = method.payload(after, CLIENTS[1], phase)
    torch.testing.assert_close(full[A], torch.tensor([[0.0, 3.0], [2.0, 0.0]]))
    torch.testing.assert_close(full[B], torch.tensor([[0.0, 2.0], [3.0, 0.0]]))
    assert full[C].tolist() == [5.0] and full[A].dtype == torch.float32
    half = method.payload(after, CLIENTS[0], phase)
    torch.testing.assert_close(half[A], torch.tensor([[0.0, 3.0]]))
    torch.testing.assert_close(half[B], torch.tensor([[0.0], [3.0]]))
    assert after.record == {"ranks": {"0": 1, "1": 2}}


def test_flexlora_forms_no_product_for_the_mean_that_runs_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """W is as large as the layer: 180 MB in LLaVA's largest, and the driver passes the weighted mean by name."""
    products = averaging.lora_products
    asked: list[Any] = []
    monkeypatch.setattr(averaging, "lora_products", lambda state: asked.append(state) or products(state))
    method, mean = FlexLora(), Defence().mean
    (phase,) = method.phases(1)
    server = method.initial_server_state(lora([[0.0]], [[0.0]]), CLIENTS[:2])
    updates = [update(0, 1, lora([[1.0]], [[2.0]])), update(1, 1, lora([[3.0]], [[1.0]]))]
    method.aggregate(phase, updates, server, mean)
    assert asked == []
    method.aggregate(phase, updates, server, coordinate_median)
    assert len(asked) == 2


def test_flexlora_restarts_what_the_product_leaves_over() -> None:
    method = FlexLora(ranks=(0.5, 1.0))
    (phase,) = method.phases(1)
    server = method.initial_server_state(START, CLIENTS[:2])
    # diag(16, 0) has rank 1: the second row of A is the start's, the second column of B zero.
    alone = method.aggregate(phase, [update(0, 1, lora([[16.0, 0.0]], [[1.0], [0.0]]))], server)
    payload = method.payload(alone, CLIENTS[1], phase)
    torch.testing.assert_close(payload[A], torch.tensor([[4.0, 0.0], [0.5, 0.5]]))
    torch.testing.assert_close(payload[B], torch.tensor([[4.0, 0.0], [0.0, 0.0]]))
    # Untrained clients (B zero) leave the start as it is.
    blank = method.aggregate(phase, [update(1, 1, START)], server)
    assert lists(method.payload(blank, CLIENTS[1], phase))[A] == START[A].tolist()


def test_flexlora_takes_a_robust_mean_of_products() -> None:
    method = FlexLora(ranks=(0.5,))
    (phase,) = method.phases(1)
    server = method.initial_server_state(START, CLIENTS[:3])
    updates = [update(k, 1, lora([[a, 0.0]], [[1.0], [0.0]])) for k, a in enumerate((4.0, 4.0, 1000.0))]
    # The median of 4, 4 and 1000 is 4 = 2 * 2.
    after = method.aggregate(phase, updates, server, coordinate_median)
    payload = method.payload(after, CLIENTS[0], phase)
    torch.testing.assert_close(payload[A], torch.tensor([[2.0, 0.0]]))
    torch.testing.assert_close(payload[B], torch.tensor([[2.0], [0.0]]))


def test_hetlora_weighs_padded_factors_by_the_norms_of_products() -> None:
    method = HetLora(ranks=(0.5, 1.0))
    (phase,) = method.phases(1)
    server = method.initial_server_state(START, CLIENTS[:2])
    updates = [
        update(0, 3, lora([[1.0, 0.0]], [[3.0], [0.0]], 2.0)),  # ||B A|| = 3
        update(1, 1, lora([[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]], 6.0)),  # ||B A|| = 1
    ]
    # Weights 3/4 and 1/4. A = 3/4 [[1, 0], [0, 0]] + 1/4 I, B = 3/4 [[3, 0], [0, 0]] + 1/4 [[0, 0], [0, 1]].
    # Connector by examples: (3 * 2 + 1 * 6) / 4 = 3.
    after = method.aggregate(phase, updates, server)
    assert lists(method.payload(after, CLIENTS[1], phase)) == {
        A: [[1.0, 0.0], [0.0, 0.25]], B: [[2.25, 0.0], [0.0, 0.25]], C: [3.0], OWN: [2.0], FULL: [2.0],
    }  # fmt: skip
    assert lists(method.payload(after, CLIENTS[0], phase))[B] == [[2.25], [0.0]]
    assert after.record == {"ranks": {"0": 1, "1": 2}, "weights": {"0": 0.75, "1": 0.25}, "pruned": []}


def test_hetlora_goes_by_examples_while_products_are_zero_and_drops_single_zeros() -> None:
    method = HetLora(ranks=(1.0,))
    (phase,) = method.phases(1)
    server = method.initial_server_state(START, CLIENTS[:2])
    zero = [[0.0, 0.0], [0.0, 0.0]]
    untrained = [update(0, 1, lora([[2.0, 2.0]] * 2, zero)), update(1, 3, lora([[6.0, 6.0]] * 2, zero))]
    assert method.aggregate(phase, untrained, server).shared[A].tolist() == [[5.0, 5.0]] * 2  # (2 + 18) / 4
    trained = [untrained[0], update(1, 3, lora([[6.0, 6.0]] * 2, [[1.0, 0.0]] * 2))]
    after = method.aggregate(phase, trained, server)
    assert after.shared[A].tolist() == [[6.0, 6.0]] * 2 and after.record["weights"] == {"0": 0.0, "1": 1.0}


def test_hetlora_restarts_rows_that_no_participant_holds() -> None:
    """Ranks 1, 2 and 4 of 4, only client 0 takes part: row 0 is its own, rows 1 to 3 are those of the start again.

    Client 2 (rank 4) then learns in them: dL/dB = dL/dW A^T, with L the sum of W = B A. They were zero before: no
    gradient. With client 2 pruned to rank 3 no client has row 3, which stays zero.
    """
    method = HetLora()
    (phase,) = method.phases(1)
    server = method.initial_server_state(INITIAL, CLIENTS)
    first = update(0, 1, lora([[1.0, 1.0]], [[2.0]] * 3))
    after = method.aggregate(phase, [first], server)
    received = method.payload(after, CLIENTS[2], phase)
    assert received[A].tolist() == [[1.0, 1.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]
    assert received[B].tolist() == [[2.0, 0.0, 0.0, 0.0]] * 3
    arrived = method.initial_state(phase, CLIENTS[2], {}, received)
    b = arrived[B].requires_grad_()
    (b @ arrived[A]).sum().backward()
    assert b.grad is not None and b.grad.tolist() == [[2.0, 7.0, 11.0, 15.0]] * 3
    less = {k: {OWN: torch.tensor([min(3.0, float(state[OWN]))])} for k, state in server.per_client.items()}
    pruned = method.aggregate(phase, [first], ServerState(server.shared, less))
    assert pruned.shared[A].tolist() == [[1.0, 1.0], [3.0, 4.0], [5.0, 6.0], [0.0, 0.0]]


def test_hetlora_penalty_and_its_gradient() -> None:
    # gamma 1/2 of rank 2: the tail is the second row and column. ||A_tail|| = 5, ||B_tail|| = 2: 0.1 * 10 = 1.
    # Gradients: 0.1 * 2 * (3, 4) / 5 = (0.12, 0.16) on A, 0.1 * 5 * (0, 1) = (0, 0.5) on B.
    method = HetLora(gamma=0.5, strength=0.1)
    state = lora([[9.0, 9.0], [3.0, 4.0], [0.0, 0.0]], [[9.0, 0.0, 0.0], [9.0, 2.0, 0.0]])
    a, b = state[A].requires_grad_(), state[B].requires_grad_()
    penalty = method.penalty(state, {OWN: torch.tensor([2.0])})
    assert penalty is not None and penalty.item() == pytest.approx(1.0) and penalty.dtype == torch.float32
    penalty.backward()
    assert a.grad is not None and b.grad is not None
    torch.testing.assert_close(a.grad, torch.tensor([[0.0, 0.0], [0.12, 0.16], [0.0, 0.0]]))
    torch.testing.assert_close(b.grad, torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0]]))
    assert method.penalty(state, {OWN: torch.tensor([1.0])}) is None  # rank 1 has no tail
    assert HetLora(gamma=0.5, strength=0.0).penalty(state, {OWN: torch.tensor([2.0])}) is None
    # B is zero when training begins: the gradient is zero, and not NaN.
    start = lora([[1.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]])
    at_zero = method.penalty({A: start[A].requires_grad_(), B: start[B].requires_grad_()}, {OWN: torch.tensor([2.0])})
    assert at_zero is not None
    at_zero.backward()
    assert start[A].grad is not None and not start[A].grad.any()
    assert start[B].grad is not None and not start[B].grad.any()


def test_hetlora_prunes_where_the_tail_shrank() -> None:
    method = HetLora(ranks=(1.0,), gamma=0.5)
    (phase,) = method.phases(1)
    # Tail of rank 2: the second row and column. Round 1: T_k was 0 before, so it cannot shrink.
    first = lora([[1.0, 0.0], [0.0, 1.0]], [[4.0, 0.0], [0.0, 3.0]])
    server = method.aggregate(
        phase, [update(k, 1, first) for k in range(3)], method.initial_server_state(START, CLIENTS[:3])
    )
    assert server.record["ranks"] == {"0": 2, "1": 2, "2": 2} and lists(server.shared)[B] == [[4.0, 0.0], [0.0, 3.0]]
    # Round 2: 3 before; client 0 comes back with 2 * 1 = 2 (pruned), client 1 with 3 (not smaller), client 2 with 4.
    updates = [
        update(k, 1, lora([[1.0, 0.0], [0.0, 1.0]], [[b, 0.0], [0.0, tail]]))
        for k, (b, tail) in enumerate(((5.0, 2.0), (4.0, 3.0), (3.0, 4.0)))
    ]
    # Client 0 counts without its tail, ||diag(5, 0)|| = 5, as the others with theirs, ||diag(4, 3)|| = 5: a third each.
    # B = 1/3 (diag(5, 0) + diag(4, 3) + diag(3, 4)) = diag(4, 7/3); A = diag(1, 2/3).
    after = method.aggregate(phase, updates, server)
    assert after.record["ranks"] == {"0": 1, "1": 2, "2": 2} and after.record["pruned"] == [0]
    torch.testing.assert_close(after.shared[B], torch.tensor([[4.0, 0.0], [0.0, 7 / 3]]))
    torch.testing.assert_close(after.shared[A], torch.tensor([[1.0, 0.0], [0.0, 2 / 3]]))
    payload = method.payload(after, CLIENTS[0], phase)
    assert payload[A].shape == (1, 2) and payload[B].shape == (2, 1) and payload[OWN].tolist() == [1.0]
    # Rank 1 is the least.
    again = method.aggregate(phase, [update(0, 1, lora([[1.0, 0.0]], [[1.0], [0.0]]))], after)
    assert again.record["ranks"]["0"] == 1 and again.record["pruned"] == []


def test_hetlora_rounds_ranks_down() -> None:
    # 0.99 of 32, 8 and 1: 31.68, 7.92 and 0.99.
    assert [HetLora().pruned_rank(rank) for rank in (32, 8, 1)] == [31, 7, 1]
    assert HetLora(gamma=1.0).pruned_rank(5) == 5
    assert HetLora(gamma=0.29).pruned_rank(100) == 29  # 0.29 * 100 = 28.999999999999996


TWO = [update(0, 1, lora([[1.0, 0.0]], [[4.0]], 2.0)), update(1, 3, lora([[0.0, 1.0]], [[8.0]], 6.0))]
"""B A = (4, 0) and (0, 8): their mean is (1, 6). Mean A = (1/4, 3/4), mean B = 7. Connector 5."""


def test_flora_adds_the_mean_product_to_the_offset_every_round() -> None:
    method = Flora()
    (phase,) = method.phases(1)
    server = method.aggregate(phase, TWO[::-1], ServerState())
    assert method.offsets and lists(method.payload(server, CLIENTS[0], phase)) == {C: [5.0], D: [[1.0, 6.0]]}
    # A second round, in which client 1 sends (0, 8) alone: (1, 6) + (0, 8).
    server = method.aggregate(phase, TWO[1:], server)
    assert lists(method.payload(server, CLIENTS[0], phase)) == {C: [6.0], D: [[1.0, 14.0]]}
    assert server.shared[D].dtype == torch.float32


def test_flora_clients_restart_lora_and_keep_nothing() -> None:
    method = Flora()
    (phase,) = method.phases(1)
    end = {**lora([[1.0, 0.0]], [[4.0]]), D: torch.zeros(1, 2)}
    split = method.split_result(phase, CLIENTS[0], PhaseResult(end, end, {}, {}, 1))
    assert split.shared.keys() == {A, B, C} and split.private == {}
    payload = {D: torch.ones(1, 2), C: torch.ones(1)}
    assert method.initial_state(phase, CLIENTS[0], {A: torch.ones(1, 2), B: torch.ones(1, 1)}, payload) == payload


def test_flora_takes_a_robust_mean_of_products() -> None:
    (phase,) = Flora().phases(1)
    updates = [update(k, 1, lora([[1.0, 0.0]], [[b]], b)) for k, b in enumerate((2.0, 3.0, 500.0))]
    server = Flora().aggregate(phase, updates, ServerState(), coordinate_median)
    assert lists(server.shared) == {C: [3.0], D: [[3.0, 0.0]]}


def test_fedex_lora_puts_the_residual_into_the_offset() -> None:
    method = FedExLora()
    (phase,) = method.phases(1)
    server = method.aggregate(phase, TWO[::-1], ServerState())
    # (1, 6) - 7 * (1/4, 3/4) = (-0.75, 0.75).
    payload = method.payload(server, CLIENTS[0], phase)
    assert method.offsets
    assert lists(payload) == {A: [[0.25, 0.75]], B: [[7.0]], C: [5.0], D: [[-0.75, 0.75]]}
    assert payload[D].dtype == torch.float32 and method.initial_state(phase, CLIENTS[0], {}, payload) == payload


def test_fedex_lora_is_the_exact_mean_of_the_clients_models() -> None:
    method = FedExLora()
    (phase,) = method.phases(1)
    source = torch.Generator().manual_seed(0)

    def small(*shape: int) -> torch.Tensor:  # quarters, so that every number below is exact in float32
        return torch.randint(-8, 9, shape, generator=source) / 4

    server = ServerState()
    for _ in range(3):
        before = server.shared.get(D, torch.zeros(3, 4))
        clients = [{A: small(2, 4), B: small(3, 2), C: small(1)} for _ in range(2)]
        counts = (1, 3)
        server = method.aggregate(phase, [update(k, counts[k], clients[k]) for k in range(2)], server)
        model = server.shared[D] + server.shared[B] @ server.shared[A]
        mean = sum(n / 4 * (before + client[B] @ client[A]) for n, client in zip(counts, clients, strict=True))
        assert torch.equal(model, torch.as_tensor(mean))


def test_pilot_with_fedavg_text_averages_text_over_all_and_task_adapters_within_tasks() -> None:
    method = PilotFedAvgText()
    phase = method.phases(2)[0]
    updates = [
        update(k, n, {A: torch.tensor([text]), "task_adapter.w": torch.tensor([task])})
        for k, n, text, task in ((0, 1, 0.0, 1.0), (1, 1, 4.0, 9.0), (2, 2, 8.0, 4.0))
    ]
    # Text: (0 + 4 + 2 * 8) / 4 = 5 for everybody; vqa (clients 0 and 2): (1 + 2 * 4) / 3 = 3; caption: 9.
    server = method.aggregate(phase, updates, ServerState())
    assert lists(method.payload(server, CLIENTS[0], phase)) == {
        A: [5.0], "task_adapter.w": [3.0], "peer_task_adapter.1.w": [9.0],
    }  # fmt: skip
    assert method.payload(server, CLIENTS[1], phase)[A].tolist() == [5.0]
    assert [phase.name for phase in method.phases(1)] == ["stage1", "stage2"]


def test_options_are_checked() -> None:
    for cls, bad in (
        (FlexLora, {"ranks": ()}), (FlexLora, {"ranks": (0.5, 0.0)}), (HetLora, {"ranks": (1.5,)}),
        (HetLora, {"gamma": 0.0}), (HetLora, {"gamma": 1.1}), (HetLora, {"strength": -1.0}),
        (PilotFedAvgText, {"adaptive_text_aggregation": True}), (PilotFedAvgText, {"num_neighbors": 0}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(bad))):
            cls(**bad)  # type: ignore[arg-type]
