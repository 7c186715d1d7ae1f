"""Our variants of Pilot: what each does with text adapters, by hand."""

import pytest
import torch

from baselines.pilot_exact_ata import PilotExactAta, mixed_product
from baselines.pilot_fedavg_text import PilotFedAvgText
from baselines.pilot_gap_ata import PilotGapAta
from baselines.pilot_momentum import PilotMomentum
from baselines.pilot_shared_a import PilotSharedA
from baselines.pilot_task_text import PilotTaskText
from pilot.methods.base import ClientInfo, ServerState, State, Update
from pilot.methods.gap import count_before_gap
from pilot.methods.pilot import Pilot
from pilot.methods.robust import coordinate_median

A, B = "text_adapter.q.lora_A", "text_adapter.q.lora_B"


def update(client: int, task: str, count: int, a: list[list[float]], b: list[list[float]]) -> Update:
    return Update(client, task, count, {A: torch.tensor(a), B: torch.tensor(b), "task_adapter.w": torch.zeros(1)})


def product(state: State) -> torch.Tensor:
    return state[B] @ state[A]


def test_exact_mixing_by_hand() -> None:
    # Rank 1, in = out = 1: 0.75 * 2 * 4 + 0.25 * (-6) * 1 = 4.5 where factors would give (0.75*2 - 1.5) * 3.25 = 0.
    states = [
        {A: torch.tensor([[4.0]]), B: torch.tensor([[2.0]])},
        {A: torch.tensor([[1.0]]), B: torch.tensor([[-6.0]])},
    ]
    mixed = mixed_product([(states[0], 0.75), (states[1], 0.25)])
    assert product(mixed).item() == pytest.approx(4.5, rel=1e-6)
    assert mixed[A].item() == mixed[B].item() == pytest.approx(4.5**0.5, rel=1e-6), "split evenly, B positive"


def test_exact_mixing_keeps_the_largest_directions_of_its_rank() -> None:
    # 3 e1 e1^T from one client and 1 e2 e2^T from the other, rank 1: the best approximation is 3 e1 e1^T.
    states = [
        {A: torch.tensor([[3.0, 0.0]]), B: torch.tensor([[2.0], [0.0]])},
        {A: torch.tensor([[0.0, 1.0]]), B: torch.tensor([[0.0], [2.0]])},
    ]
    mixed = mixed_product([(state, 0.5) for state in states])
    torch.testing.assert_close(product(mixed), torch.tensor([[3.0, 0.0], [0.0, 0.0]]))


def test_directions_that_nothing_fills_can_still_be_learned() -> None:
    start = {A: torch.tensor([[1.0, 2.0], [3.0, 4.0]]), B: torch.tensor([[1.0, 0.0], [0.0, 0.0]])}
    mixed = mixed_product([(start, 1.0)])
    torch.testing.assert_close(product(mixed), product(start))
    assert mixed[A][1].tolist() == [3.0, 4.0] and mixed[B][:, 1].tolist() == [0.0, 0.0]
    untouched = mixed_product([({A: start[A], B: torch.zeros(2, 2)}, 1.0)])
    assert torch.equal(untouched[A], start[A]) and not untouched[B].any()


def test_exact_mixing_does_not_depend_on_the_factors() -> None:
    source = torch.Generator().manual_seed(5)
    a, b = torch.randn(3, 4, 6, generator=source), torch.randn(3, 5, 4, generator=source)
    turns, _ = torch.linalg.qr(torch.randn(3, 4, 4, generator=source))
    plain = [update(k, "t", k + 1, a[k].tolist(), b[k].tolist()) for k in range(3)]
    turned = [update(k, "t", k + 1, (turns[k].T @ a[k]).tolist(), (b[k] @ turns[k]).tolist()) for k in range(3)]
    method = PilotExactAta(num_neighbors=2)
    for one, other in zip(method.mix_text_adapters(plain)[0], method.mix_text_adapters(turned)[0], strict=True):
        torch.testing.assert_close(product(one), product(other), rtol=1e-4, atol=1e-4)
    with_factors = Pilot(num_neighbors=2).mix_text_adapters(turned)[0]
    assert not torch.allclose(
        product(with_factors[0]), product(Pilot(num_neighbors=2).mix_text_adapters(plain)[0][0]), atol=1e-2
    )


def test_one_a_for_all_and_b_of_the_near_ones() -> None:
    # A: (1*1 + 3*5) / 4 = 4. M = 1, so each takes in the other by a_k = n_k / (n_k + n_j):
    # B_0 = 1/4 * 8 + 3/4 * 0 = 2; B_1 = 3/4 * 0 + 1/4 * 8 = 2.
    method = PilotSharedA(num_neighbors=1)
    mixed, record = method.mix_text_adapters([update(0, "a", 1, [[1.0]], [[8.0]]), update(1, "b", 3, [[5.0]], [[0.0]])])
    assert [state[A].item() for state in mixed] == [4.0, 4.0]
    assert [state[B].item() for state in mixed] == [2.0, 2.0]
    assert record["neighbours"] == {"0": [1], "1": [0]} and record["distances"][0][1] == 8.0


def test_neighbours_are_found_by_b_alone() -> None:
    # Client 1's A is far from client 0's, its B is the same: it is the nearest all the same.
    clients = [
        update(0, "a", 1, [[0.0]], [[1.0]]), update(1, "a", 1, [[100.0]], [[1.0]]), update(2, "a", 1, [[0.0]], [[2.0]]),
    ]  # fmt: skip
    _, record = PilotSharedA(num_neighbors=1).mix_text_adapters(clients)
    assert record["neighbours"]["0"] == [1]
    assert Pilot(num_neighbors=1).mix_text_adapters(clients)[1]["neighbours"]["0"] == [2]


def test_text_adapters_of_a_task() -> None:
    # Task a: (1*1 + 3*5) / 4 = 4; task b keeps its own.
    clients = [
        update(0, "a", 1, [[1.0]], [[0.0]]), update(1, "a", 3, [[5.0]], [[0.0]]), update(2, "b", 2, [[7.0]], [[0.0]]),
    ]  # fmt: skip
    mixed, record = PilotTaskText().mix_text_adapters(clients)
    assert [state[A].item() for state in mixed] == [4.0, 4.0, 7.0]
    assert record == {"clusters": {"a": [0, 1], "b": [2]}}


def test_momentum_by_hand() -> None:
    # One client, so Pilot's aggregation is what it sent. Text B: start 0, sent 2: v = 2, x = 2. Sent 3 from 2:
    # v = 0.5 * 2 + 1 = 2, x = 4. Task adapter: start 1, sent 2: v = 1, x = 2; sent 1.5: v = 0.5 - 0.5 = 0, x = 2.
    method, client = PilotMomentum(beta=0.5), ClientInfo(0, "a", ("a",), 0)
    (phase,) = method.phases(2)

    def sent(b: float, w: float) -> list[Update]:
        return [Update(0, "a", 3, {A: torch.ones(1, 1), B: torch.tensor([[b]]), "task_adapter.w": torch.tensor([w])})]

    start = {A: torch.ones(1, 1), B: torch.zeros(1, 1), "task_adapter.w": torch.ones(1)}
    server = method.initial_server_state(start, [client])
    assert method.payload(server, client, phase) == {}
    for b, w, expected in ((2.0, 2.0, (2.0, 2.0)), (3.0, 1.5, (4.0, 2.0))):
        server = method.aggregate(phase, sent(b, w), server)
        payload = method.payload(server, client, phase)
        assert (payload[B].item(), payload["task_adapter.w"].item()) == expected
        assert payload.keys() == start.keys() and payload[A].item() == 1.0


def test_without_momentum_it_is_pilot() -> None:
    clients = [update(k, "ab"[k % 2], k + 1, [[float(k)]], [[k * k - 1.0]]) for k in range(4)]
    info, method = ClientInfo(1, "b", ("a", "b"), 0), PilotMomentum(beta=0.0)
    (phase,) = method.phases(2)
    start = {**clients[0].state}
    ours = method.aggregate(phase, clients, method.initial_server_state(start, []))
    theirs = Pilot().aggregate(phase, clients, ServerState())
    for name, value in Pilot().payload(theirs, info, phase).items():
        torch.testing.assert_close(method.payload(ours, info, phase)[name], value)


def test_who_was_away_keeps_model_and_momentum() -> None:
    method, away = PilotMomentum(beta=0.5), ClientInfo(1, "b", ("a", "b"), 0)
    (phase,) = method.phases(2)
    both = [update(0, "a", 1, [[1.0]], [[1.0]]), update(1, "b", 1, [[1.0]], [[3.0]])]
    server = method.aggregate(phase, both, method.initial_server_state(dict(both[0].state), []))
    later = method.aggregate(phase, both[:1], server)
    assert method.payload(later, away, phase)[B].item() == method.payload(server, away, phase)[B].item()
    assert later.shared[f"momentum.1.{B}"].item() == server.shared[f"momentum.1.{B}"].item()


def test_gap_and_momentum_together() -> None:
    """B 0, 1 | 10, 11, 12: the first two mix to 0.5, start 0: v = 0.5; then 0.5 from 0.5: v = 0.25, x = 0.75."""
    clients = [update(k, "t", 1, [[1.0]], [[b]]) for k, b in enumerate((0.0, 1.0, 10.0, 11.0, 12.0))]
    method, info = PilotMomentum(beta=0.5, gap=True), ClientInfo(0, "t", ("t",), 0)
    (phase,) = method.phases(2)
    start = {A: torch.ones(1, 1), B: torch.zeros(1, 1), "task_adapter.w": torch.zeros(1)}
    server = method.aggregate(phase, clients, method.initial_server_state(start, [info]))
    assert server.record["neighbours"]["0"] == [1]
    assert method.payload(server, info, phase)[B].item() == pytest.approx(0.5)
    again = method.aggregate(phase, clients, server)
    assert method.payload(again, info, phase)[B].item() == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("distances", "count"),
    [
        ([1.0, 1.1, 2.0, 2.1], 2),  # 1.1, 1.82, 1.05
        ([1.0, 3.0, 4.0], 1),
        ([1.0, 2.0, 4.0], 1),  # both gaps are twofold
        ([1.0, 1.5, 1.6, 9.0], 3),
        ([0.0, 0.0, 5.0], 2),
        ([4.0], 1),
        ([], 0),
    ],
)
def test_neighbours_before_the_gap(distances: list[float], count: int) -> None:
    assert count_before_gap(distances) == count


def test_who_has_one_near_client_takes_no_stranger() -> None:
    # B is 0, 1 | 10, 11, 12 with A = 1, so 0 and 1 have one neighbour each, the others two.
    clients = [update(k, "t", 1, [[1.0]], [[b]]) for k, b in enumerate((0.0, 1.0, 10.0, 11.0, 12.0))]
    mixed, record = PilotGapAta().mix_text_adapters(clients)
    assert {k: sorted(v) for k, v in record["neighbours"].items()} == {
        "0": [1], "1": [0], "2": [3, 4], "3": [2, 4], "4": [2, 3]
    }  # fmt: skip
    # a = 1/2 for equal counts: (0 + 1) / 2. Client 2: weights 2/3, 1/3: 10 / 2 + (11 * 2/3 + 12 * 1/3) / 2 = 10.667.
    assert mixed[0][B].item() == pytest.approx(0.5) and mixed[2][B].item() == pytest.approx(32 / 3)
    assert Pilot(num_neighbors=3).mix_text_adapters(clients)[1]["neighbours"]["0"] == [1, 2, 3]
    assert PilotGapAta(num_neighbors=1).mix_text_adapters(clients)[1]["neighbours"]["2"] == [3]


def infos(*tasks: str) -> list[ClientInfo]:
    return [ClientInfo(k, task, tuple(sorted(set(tasks))), 0) for k, task in enumerate(tasks)]


def test_one_a_for_all_also_for_absent_clients_and_newcomers() -> None:
    """A is 1, then 5 of clients 0 and 2: all have 5. B of client 1 stays; a newcomer has none yet."""
    method, clients = PilotSharedA(num_neighbors=1), infos("a", "a", "a", "a")
    (phase,) = method.phases(2)
    first = [update(k, "a", 1, [[1.0]], [[7.0]]) for k in range(3)]
    server = method.aggregate(phase, first, ServerState())
    server = method.aggregate(phase, [update(k, "a", 1, [[5.0]], [[8.0]]) for k in (0, 2)], server)
    received = [method.payload(server, info, phase) for info in clients]
    assert [each[A].item() for each in received] == [5.0] * 4
    assert [each[B].item() for each in received if B in each] == [8.0, 7.0, 8.0]
    assert method.payload(ServerState(), clients[0], phase) == {}


def test_a_tasks_text_adapter_reaches_absent_clients_and_newcomers() -> None:
    """Task c: B 9.5 and 9.6, mean 9.55; then 3 of client 2 alone, for client 3 and a newcomer, too. Task a keeps 1."""
    method, clients = PilotTaskText(), infos("a", "a", "c", "c", "c")
    (phase,) = method.phases(2)
    sent = [
        update(k, info.task, 1, [[1.0]], [[b]])
        for k, (info, b) in enumerate(zip(clients, (1.0, 1.0, 9.5, 9.6), strict=False))
    ]
    server = method.aggregate(phase, sent, ServerState())
    received = [method.payload(server, info, phase)[B].item() for info in clients]
    assert received == pytest.approx([1.0, 1.0, 9.55, 9.55, 9.55])
    assert method.newcomer_state(server, clients[4], {A: torch.ones(1, 1), B: torch.zeros(1, 1)}) == {}
    server = method.aggregate(phase, [update(2, "c", 1, [[1.0]], [[3.0]])], server)
    assert [method.payload(server, info, phase)[B].item() for info in clients] == [1.0, 1.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("method", [PilotTaskText(), PilotSharedA(num_neighbors=1), PilotFedAvgText()])
def test_averaged_text_adapters_take_the_robust_mean(method: Pilot) -> None:
    """The median of A 1, 1 and 1000 is 1, where the mean is 334."""
    (phase,) = method.phases(2)
    clients = infos("a", "a", "a")
    sent = [update(k, "a", 1, [[a]], [[1.0]]) for k, a in enumerate((1.0, 1.0, 1000.0))]
    server = method.aggregate(phase, sent, ServerState(), coordinate_median)
    assert [method.payload(server, info, phase)[A].item() for info in clients] == [1.0] * 3
    plain = method.aggregate(phase, sent, ServerState())
    assert method.payload(plain, clients[0], phase)[A].item() == pytest.approx(334.0)


START = {A: torch.ones(1, 1), B: torch.zeros(1, 1)}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (PilotGapAta(), 4 / 3),  # of 1, 2 | 10, 11 the first two: (1 / 1 + 2 / 2) / (1 / 1 + 1 / 2)
        (PilotGapAta(num_neighbors=1), 1.0),
        (PilotMomentum(gap=True), 4 / 3),
        (PilotMomentum(num_neighbors=2), 4 / 3),
        (PilotSharedA(num_neighbors=1), 1.0),
        (Pilot(num_neighbors=3), 3 / 1.6),  # (1 + 1 + 1) / (1 + 1 / 2 + 1 / 10)
    ],
)
def test_newcomers_receive_what_the_variant_mixes(method: Pilot, expected: float) -> None:
    texts = {k: {A: torch.ones(1, 1), B: torch.tensor([[b]])} for k, b in enumerate((1.0, 2.0, 10.0, 11.0))}
    newcomer = ClientInfo(9, "a", ("a",), 0)
    received = method.newcomer_state(ServerState({}, texts), newcomer, START)
    assert received[B].item() == pytest.approx(expected)
    assert method.newcomer_state(ServerState(), newcomer, START) == {}


def test_a_newcomers_product_is_the_mixed_product() -> None:
    """Products 8 = 2 * 4 and 4 = 4 * 1 at distances 8 and 4: 8 / 3 + 4 * 2 / 3 = 16 / 3; mixed factors give 20 / 3."""
    texts = {k: {A: torch.tensor([[a]]), B: torch.tensor([[b]])} for k, (a, b) in enumerate(((4.0, 2.0), (1.0, 4.0)))}
    newcomer, server = ClientInfo(9, "a", ("a",), 0), ServerState({}, texts)
    assert product(PilotExactAta().newcomer_state(server, newcomer, START)).item() == pytest.approx(16 / 3)
    plain = Pilot(distance="product").newcomer_state(server, newcomer, START)
    assert product(plain).item() == pytest.approx(20 / 3)


@pytest.mark.parametrize("method", [PilotExactAta, PilotSharedA, PilotMomentum, PilotGapAta, PilotTaskText])
def test_they_are_about_ata(method: type[Pilot]) -> None:
    with pytest.raises(ValueError, match="adaptive_text_aggregation"):
        method(adaptive_text_aggregation=False)
    with pytest.raises(ValueError, match="adaptive_text_aggregation"):
        PilotFedAvgText(adaptive_text_aggregation=True)
