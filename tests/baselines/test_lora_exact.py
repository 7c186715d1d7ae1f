"""RoLoRA, FedRot-LoRA, FedSVD, FLoRIST, LoRA-FAIR, FediLoRA and LoRA with a shared part, by hand."""

from typing import Any

import pytest
import torch

from baselines.fedilora import FediLora
from baselines.fedrot_lora import FedRotLora, rotation
from baselines.fedsvd import FedSvd
from baselines.florist import Florist, rank_of_energy
from baselines.lora_fair import LoraFair
from baselines.rolora import RoLora
from baselines.shared_subset import SharedSubset
from pilot.methods.base import ClientInfo, Method, PhaseResult, ServerState, SplitResult, State, Update
from pilot.methods.ranks import FULL, OWN
from pilot.methods.robust import coordinate_median

A, B, C, D = "text_adapter.q.lora_A", "text_adapter.q.lora_B", "connector.a", "offset.q.weight"
CLIENTS = [ClientInfo(client=k, task="vqa", tasks=("vqa",), seed=0) for k in range(3)]


def lora(a: Any, b: Any, connector: float = 0.0) -> State:
    return {A: torch.tensor(a), B: torch.tensor(b), C: torch.tensor([connector])}


def update(client: int, count: int, state: State) -> Update:
    return Update(client, "vqa", count, state)


def lists(state: State) -> dict[str, Any]:
    return {name: value.tolist() for name, value in state.items()}


def after(
    method: Method, number: int, end: State, payload: State | None = None, stored: State | None = None
) -> SplitResult:
    (phase,) = method.phases(number)
    return method.split_result(phase, CLIENTS[0], PhaseResult(end, end, stored or {}, payload or {}, 1))


def test_rolora_takes_turns_and_sends_what_the_client_lacks() -> None:
    method = RoLora()
    (first,), (second,), (third,) = (method.phases(number) for number in (1, 2, 3))
    assert first.trainable == first.shared == {"text_adapter:lora_B", "connector"} == third.shared
    assert second.trainable == second.shared == {"text_adapter:lora_A", "connector"}
    ends = lora([[9.0]], [[2.0]], 1.0), lora([[9.0]], [[6.0]], 5.0)
    splits = [after(method, 1, end) for end in ends]
    assert [lists(split.private) for split in splits] == [{A: [[9.0]]}] * 2
    # B: (1 * 2 + 3 * 6) / 4 = 5; connector: (1 * 1 + 3 * 5) / 4 = 4. Client 2 took no part; it has the seed's A.
    updates = [update(k, count, split.shared) for k, count, split in zip(range(2), (1, 3), splits, strict=True)]
    server = method.aggregate(first, iter(updates), ServerState())
    payloads = [method.payload(server, info, second) for info in CLIENTS]
    assert [lists(payload) for payload in payloads] == [{B: [[5.0]], C: [4.0]}] * 3
    # Round 2: clients 0 and 2 train A; both keep the common B.
    split = after(method, 2, lora([[7.0]], [[5.0]], 4.0), payloads[0], splits[0].private)
    assert lists(split.private) == {B: [[5.0]]} and lists(split.shared) == {A: [[7.0]], C: [4.0]}
    far = after(method, 2, lora([[3.0]], [[5.0]], 8.0), payloads[2])
    server = method.aggregate(second, iter([update(0, 1, split.shared), update(2, 1, far.shared)]), server)
    assert lists(server.shared) == {B: [[5.0]], C: [6.0], A: [[5.0]]}
    # Round 3: they lack A; client 1, which was absent, and a newcomer lack both.
    new = ClientInfo(client=7, task="vqa", tasks=("vqa",), seed=0)
    sizes = [sorted(method.payload(server, info, third)) for info in (CLIENTS[0], CLIENTS[1], new)]
    assert sizes == [[C, A], [C, A, B], [C, A, B]]
    begun = method.initial_state(third, CLIENTS[0], split.private, method.payload(server, CLIENTS[0], third))
    absent = method.initial_state(third, CLIENTS[1], splits[1].private, method.payload(server, CLIENTS[1], third))
    assert lists(begun) == {B: [[5.0]], A: [[5.0]], C: [6.0]} and absent.keys() == begun.keys()
    assert all(absent[name].equal(value) for name, value in begun.items())


def test_fedsvd_makes_a_orthonormal_and_loses_nothing() -> None:
    method = FedSvd()
    (first,), (second,) = method.phases(1), method.phases(2)
    assert first.trainable == second.trainable == second.shared == {"text_adapter:lora_B", "connector"}
    assert first.shared == {"text_adapter", "connector"}, "the server learns the first A"
    # Mean B (0.5 * 2 + 0.5 * 4) = 3, A = (3, 4): B A = (9, 12) = 15 (0.6, 0.8).
    sent = [after(method, 1, lora([[3.0, 4.0]], [[b]])).shared for b in (2.0, 4.0)]
    server = method.aggregate(first, iter([update(k, 1, sent[k]) for k in range(2)]), ServerState())
    assert server.shared[A].flatten().tolist() == pytest.approx([0.6, 0.8])
    assert server.shared[B].flatten().tolist() == pytest.approx([15.0])
    # Round 2: A is the server's. Mean B = (1, -2): the product keeps its row (0.6, 0.8); the larger entry is positive.
    sent = [{B: torch.tensor([[b]]), C: torch.zeros(1)} for b in (1.0, -5.0)]
    server = method.aggregate(second, iter([update(k, 1, sent[k]) for k in range(2)]), server)
    assert server.shared[A].flatten().tolist() == pytest.approx([-0.6, -0.8])
    assert server.shared[B].flatten().tolist() == pytest.approx([2.0])


def test_fedsvd_has_a_if_round_one_was_skipped() -> None:
    """Round 2 sends B alone: mean (2 + 4) / 2 = 3, and the seed's A (3, 4): 15 (0.6, 0.8). Round 1 receives nothing."""
    method = FedSvd()
    server = method.initial_server_state(lora([[3.0, 4.0]], [[0.0]]), CLIENTS)
    assert all(method.payload(server, CLIENTS[0], phase) == {} for phase in (*method.phases(1), *method.phases(2)))
    sent = [{B: torch.tensor([[b]]), C: torch.zeros(1)} for b in (2.0, 4.0)]
    server = method.aggregate(method.phases(2)[0], iter([update(k, 1, sent[k]) for k in range(2)]), server)
    assert server.shared[A].flatten().tolist() == pytest.approx([0.6, 0.8])
    assert method.payload(server, CLIENTS[0], method.phases(3)[0])[B].item() == pytest.approx(15.0)


def test_fedsvd_fills_up_a_lower_rank() -> None:
    """B's second column is zero, so that the product has rank 1: the second row of A stays and can be learned."""
    method = FedSvd()
    (phase,) = method.phases(1)
    state = lora([[0.0, 2.0], [5.0, 6.0]], [[3.0, 0.0], [0.0, 0.0]])
    server = method.aggregate(phase, iter([update(0, 1, state)]), ServerState())
    assert server.shared[A].flatten().tolist() == pytest.approx([0.0, 1.0, 5.0, 6.0])
    assert server.shared[B].flatten().tolist() == pytest.approx([6.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("number", [2, 3])
def test_fedrot_turns_towards_the_received_factors(strength: float, number: int) -> None:
    """A is the received one, B too, turned by 90 degrees: R turns them by 90, or by 45 degrees, back."""
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    received = lora([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], 4.0)
    end = {A: quarter @ received[A], B: received[B] @ quarter.T, C: torch.ones(1)}
    split = after(FedRotLora(strength=strength), number, end, received)
    half = 0.5**0.5
    left = {0.0: [0.0, -1.0, 1.0, 0.0], 0.5: [half, -half, half, half], 1.0: [1.0, 0.0, 0.0, 1.0]}[strength]
    assert split.shared[A].flatten().tolist() == pytest.approx(left, abs=1e-6)
    assert (split.shared[B] @ split.shared[A]).flatten().tolist() == pytest.approx([1.0, 0.0, 0.0, 1.0], abs=1e-6)
    assert split.shared[C].item() == 1.0 and split.private == {}


@pytest.mark.parametrize("size", [1.0, 1e-6, 5e-8, 1e-12])
def test_fedrot_turns_small_factors_as_large_ones(size: float) -> None:
    """By 90 degrees, at any size of B; with a global B of zero there is no direction."""
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    received = lora([[1.0, 0.0], [0.0, 1.0]], [[size, 0.0], [0.0, size]])
    end = {A: quarter @ received[A], B: received[B] @ quarter.T, C: torch.ones(1)}
    turned = after(FedRotLora(strength=1.0), 3, end, received).shared
    assert turned[A].flatten().tolist() == pytest.approx([1.0, 0.0, 0.0, 1.0], abs=1e-6)
    assert turned[B].flatten().tolist() == pytest.approx([size, 0.0, 0.0, size], abs=1e-6 * size)
    still = after(FedRotLora(strength=1.0), 3, end, {**received, B: torch.zeros(2, 2)}).shared
    assert still[A].equal(end[A]) and still[B].equal(end[B])


def test_fedrot_never_mirrors_and_leaves_the_first_round_alone() -> None:
    mirrored = rotation(torch.tensor([[2.0, 0.0], [0.0, -1.0]]))  # the nearest orthogonal matrix is diag(1, -1)
    assert mirrored.tolist() == rotation(torch.zeros(2, 2)).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    end = lora([[0.0, 1.0], [1.0, 0.0]], [[1.0, 2.0]])
    assert lists(after(FedRotLora(), 1, end, end).shared) == lists(end)
    assert lists(after(FedRotLora(), 2, end).shared) == lists(end), "nothing received: absent until now"
    with pytest.raises(ValueError, match="strength: expected a number in 0..1, got 1.5"):
        FedRotLora(strength=1.5)


def test_florist_keeps_the_least_rank_that_has_the_energy() -> None:
    # e1 e1^T with weight .9 and e2 e2^T with .1: squares .81 and .01, of which .81 / .82 = 0.988. Equal weights: 1 / 2.
    assert rank_of_energy(torch.tensor([0.9, 0.1]), 0.9) == 1 and rank_of_energy(torch.tensor([0.5, 0.5]), 0.9) == 2
    assert rank_of_energy(torch.tensor([2.0, 1.0, 0.5]), 1.0) == 3 and rank_of_energy(torch.zeros(0), 0.9) == 0
    one, two = lora([[1.0, 0.0]], [[1.0], [0.0]], 1.0), lora([[0.0, 1.0]], [[0.0], [1.0]], 3.0)
    method = Florist()
    (phase,) = method.phases(1)
    server = method.aggregate(phase, iter([update(0, 9, one), update(1, 1, two)]), ServerState())
    assert server.shared[D].flatten().tolist() == pytest.approx([0.9, 0.0, 0.0, 0.0]) and server.record["ranks"] == {
        "q": 1
    }
    assert server.shared[C].item() == pytest.approx(1.2)
    whole = Florist(energy=1.0).aggregate(phase, iter([update(0, 9, one), update(1, 1, two)]), ServerState())
    assert whole.shared[D].flatten().tolist() == pytest.approx([0.9, 0.0, 0.0, 0.1])
    robust = method.aggregate(
        phase, iter([update(k, 1, each) for k, each in enumerate((one, one, two))]), ServerState(), coordinate_median
    )
    assert robust.shared[D].flatten().tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0])


def test_florist_clients_compute_d_themselves() -> None:
    """Who was there receives factors of low rank, who was not D; both start from the same bytes, with a fresh LoRA."""
    method = Florist(energy=1.0)
    (phase,) = method.phases(1)
    server, stored = ServerState(), {0: State(), 1: State()}
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        present = (0, 1) if number < 2 else (0,)
        updates = []
        for client in present:
            payload = method.payload(server, CLIENTS[client], phase)
            begun = method.initial_state(phase, CLIENTS[client], stored[client], payload)
            assert not [name for name in begun if name.startswith("text_adapter")], "LoRA starts anew"
            if number:
                assert begun[D].equal(server.shared[D]) and D not in payload and f"step.{A}" in payload
            trained = {A: torch.randn(2, 4, generator=generator), B: torch.randn(3, 2, generator=generator)}
            end = {D: torch.zeros(3, 4), **begun, **trained, C: torch.zeros(1)}
            split = method.split_result(phase, CLIENTS[client], PhaseResult(end, end, stored[client], payload, 1))
            stored[client] = split.private
            assert split.private.keys() == {D} and split.shared.keys() == {A, B, C}
            updates.append(update(client, 1, split.shared))
        server = method.aggregate(phase, iter(updates), server)
    missed = method.payload(server, CLIENTS[1], phase)
    assert missed.keys() == {D, C}
    ends = [
        method.initial_state(phase, CLIENTS[k], stored[k], method.payload(server, CLIENTS[k], phase)) for k in (0, 1)
    ]
    assert ends[0][D].equal(ends[1][D]) and ends[0][D].equal(server.shared[D])


def test_lora_fair_turns_b_towards_the_mean_product() -> None:
    """A = (1, .5), B = (.5, .5), dW = (.5, 0; .5, .5), dW A^T = (.5, .75): the best direction of b is (2, 3).

    cos before: .625 / (sqrt(.75) sqrt(.625)) = .9129; at best .93095. L2 without penalty: b = dW A^T / 1.25.
    """
    updates = [update(0, 1, lora([[1.0, 0.0]], [[1.0], [0.0]])), update(1, 1, lora([[1.0, 1.0]], [[0.0], [1.0]]))]
    (phase,) = LoraFair().phases(1)
    exact = LoraFair(objective="l2", strength=0.0).aggregate(phase, iter(updates), ServerState())
    assert exact.shared[B].flatten().tolist() == pytest.approx([0.4, 0.6])
    assert exact.shared[A].flatten().tolist() == pytest.approx([1.0, 0.5])
    assert exact.record["cosine_before"] == pytest.approx(0.9129, abs=5e-5)
    assert exact.record["cosine_after"] == pytest.approx(0.93095, abs=5e-5)
    # strength 1.25: the step is halved, b = .5 + (dW A^T - B A A^T) / (1.25 + 1.25) = .5 + (-.125, .125) / 2.5.
    held = LoraFair(objective="l2", strength=1.25).aggregate(phase, iter(updates), ServerState())
    assert held.shared[B].flatten().tolist() == pytest.approx([0.45, 0.55])
    turned = LoraFair(strength=0.0).aggregate(phase, iter(updates), ServerState())
    assert turned.record["cosine_after"] == pytest.approx(0.93095, abs=5e-5)
    first, second = turned.shared[B].flatten().tolist()
    assert second / first == pytest.approx(1.5, rel=1e-3)
    between = LoraFair(strength=0.1).aggregate(phase, iter(updates), ServerState()).record["cosine_after"]
    assert 0.9129 < between < 0.93095


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-8])
def test_lora_fair_does_not_overshoot_where_b_is_small(size: float) -> None:
    """As above with B times `size`: the same direction (2, 3), and a B that is not inflated. Steps of 0.01 diverge."""
    sent = [lora([[1.0, 0.0]], [[size], [0.0]]), lora([[1.0, 1.0]], [[0.0], [size]])]
    (phase,) = LoraFair().phases(1)
    server = LoraFair().aggregate(phase, iter([update(k, 1, each) for k, each in enumerate(sent)]), ServerState())
    assert server.record["cosine_before"] == pytest.approx(0.9129, abs=5e-5)
    assert server.record["cosine_after"] == pytest.approx(0.93095, abs=5e-5)
    first, second = server.shared[B].flatten().tolist()
    assert second / first == pytest.approx(1.5, rel=1e-3)
    assert 1 <= server.shared[B].norm().item() / (0.5**0.5 * size) < 1.05


def test_lora_fair_changes_nothing_where_there_is_nothing_to_correct() -> None:
    # B_1 = e1, A_1 = e1, B_2 = e2, A_2 = e2: B = (.5, .5) is as good as any; a zero product has no direction.
    (phase,) = LoraFair().phases(1)
    apart = [update(0, 1, lora([[1.0, 0.0]], [[1.0], [0.0]])), update(1, 1, lora([[0.0, 1.0]], [[0.0], [1.0]]))]
    server = LoraFair().aggregate(phase, iter(apart), ServerState())
    assert server.shared[B].flatten().tolist() == pytest.approx([0.5, 0.5])
    zero = LoraFair().aggregate(phase, iter([update(0, 1, lora([[1.0, 0.0]], [[0.0], [0.0]]))]), ServerState())
    assert zero.shared[B].flatten().tolist() == [0.0, 0.0] and zero.record == {"cosine_before": 0, "cosine_after": 0}
    with pytest.raises(ValueError, match="objective: expected one of cosine, l2, got 'l1'"):
        LoraFair(objective="l1")


def test_fedilora_averages_rows_over_those_who_have_them() -> None:
    """Ranks 1 and 2 of 2, weights 3 and 1: row 1 is (3, 1), where padding would give (2, 2) in row 2, not (8, 8)."""
    method = FediLora(ranks=(0.5, 1.0))
    (phase,) = method.phases(1)
    initial = lora([[9.0, 9.0], [9.0, 9.0]], [[0.0, 0.0]])
    server = method.initial_server_state(initial, CLIENTS[:2])
    narrow, wide = lora([[4.0, 0.0]], [[4.0]], 4.0), lora([[0.0, 4.0], [8.0, 8.0]], [[0.0, 6.0]])
    server = method.aggregate(phase, iter([update(0, 3, narrow), update(1, 1, wide)]), server)
    assert server.shared[A].tolist() == [[3.0, 1.0], [8.0, 8.0]] and server.shared[B].tolist() == [[3.0, 6.0]]
    assert server.shared[C].item() == 3.0
    assert lists(method.payload(server, CLIENTS[0], phase)) == {
        A: [[3.0, 1.0]], B: [[3.0]], C: [3.0], OWN: [1.0], FULL: [2.0],
    }  # fmt: skip
    # Nobody with rank 2 in a round: its row restarts.
    alone = method.aggregate(phase, iter([update(0, 3, narrow)]), server)
    assert alone.shared[A].tolist() == [[4.0, 0.0], [9.0, 9.0]] and alone.shared[B].tolist() == [[4.0, 0.0]]


def test_fedilora_edits_the_layer_that_is_least_like_the_received_one() -> None:
    """Received (.6, .8), trained (1, 0): c = .6, so .4 (.6, .8) + .6 (1, 0) = (.84, .32); the other layer is alike."""
    other = "text_adapter.v.lora_A"
    received = {
        **lora([[0.6, 0.8]], [[1.0]]),
        other: torch.tensor([[1.0, 0.0]]),
        OWN: torch.ones(1),
        FULL: torch.ones(1),
    }
    end = {**lora([[1.0, 0.0]], [[2.0]]), other: torch.tensor([[2.0, 0.1]]), "text_adapter.v.lora_B": torch.ones(1, 1)}
    method = FediLora(ranks=(1.0,))
    sent = after(method, 2, end, received).shared
    assert sent[A].flatten().tolist() == pytest.approx([0.84, 0.32]) and sent[other].equal(end[other])
    assert sent[B].equal(end[B])
    for number, limit, payload in (
        (1, 0.95, received),
        (2, 0.5, received),
        (2, 0.95, {OWN: received[OWN], FULL: received[FULL]}),
    ):
        assert after(FediLora(ranks=(1.0,), limit=limit), number, end, payload).shared[A].equal(end[A]), (number, limit)
    with pytest.raises(ValueError, match="limit: expected a number in -1..1"):
        FediLora(limit=2.0)


@pytest.mark.parametrize(
    ("shared", "leaves"),
    [
        (("B",), {"q_proj.lora_B", "v_proj.lora_B"}), (("A",), {"q_proj.lora_A", "v_proj.lora_A"}),
        (("q_proj",), {"q_proj.lora_A", "q_proj.lora_B"}), (("v_proj", "B"), {"v_proj.lora_B"}),
    ],
)  # fmt: skip
def test_shared_subset(shared: tuple[str, ...], leaves: set[str]) -> None:
    """Two clients, values 1 and 3: what leaves becomes 2 for both, what stays is 1 and 3."""
    method = SharedSubset(shared=shared)
    (phase,) = method.phases(1)
    names = [f"text_adapter.layers.0.{layer}.lora_{factor}" for layer in ("q_proj", "v_proj") for factor in "AB"]
    splits = [
        after(method, 1, {**{name: torch.full((1, 1), v) for name in names}, C: torch.zeros(1)}) for v in (1.0, 3.0)
    ]
    server = method.aggregate(
        phase, iter([update(k, 1, split.shared) for k, split in enumerate(splits)]), ServerState()
    )
    for value, split in zip((1.0, 3.0), splits, strict=True):
        payload = method.payload(server, CLIENTS[0], phase)
        begun = method.initial_state(phase, CLIENTS[0], split.private, payload)
        found = {name.removeprefix("text_adapter.layers.0."): each.item() for name, each in begun.items() if name != C}
        assert found == {n: 2.0 if n in leaves else value for n in found} and len(found) == 4
    with pytest.raises(ValueError, match="shared: expected one or more of A, B, q_proj"):
        SharedSubset(shared=())


@pytest.mark.parametrize("part", ["b", "q_porj", "lora_B", "layers.0.q_proj"])
def test_shared_subset_refuses_parts_that_no_lora_has(part: str) -> None:
    with pytest.raises(ValueError, match=rf"shared: expected one or more of A, B, q_proj, .*, got \['{part}'\]"):
        SharedSubset(shared=("A", part))
