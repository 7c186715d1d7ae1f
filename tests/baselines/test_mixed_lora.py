"""Several LoRAs in each layer, FedALT and FedLEASE, by hand."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from baselines.fedalt import FedAlt
from baselines.fedlease import FedLease
from pilot.backbone.lora import LoraLinear
from pilot.backbone.mixed import LayerMixture
from pilot.methods.base import ClientInfo, PhaseResult, ServerState, State, Update
from pilot.methods.mixed_lora import Mixture, mixed_state

from ..small import Small

A, B, G, C = "text_adapter.q.lora_A", "text_adapter.q.lora_B", "text_router.q.weight", "connector.a"
OTHER_A, OTHER_B = "other_adapter.1.q.lora_A", "other_adapter.1.q.lora_B"
CLIENTS = [ClientInfo(client=k, task="vqa", tasks=("vqa",), seed=0) for k in range(3)]
X = torch.tensor([[[1.0, 2.0]]])


def layer(mixture: Mixture, router: Any) -> LoraLinear:
    """W = I, s = 2; own LoRA: 2 x_1 on the first axis; LoRA 1: 3 x_2 on the second."""
    linear = nn.Linear(2, 2, bias=False)
    made = LoraLinear(linear, rank=1, alpha=2)
    values = {OTHER_A: [[0.0, 1.0]], OTHER_B: [[0.0], [3.0]], G: router}
    with torch.no_grad():
        linear.weight.copy_(torch.eye(2))
        made.lora_A.copy_(torch.tensor([[1.0, 0.0]]))
        made.lora_B.copy_(torch.tensor([[2.0], [0.0]]))
    own = {A: made.lora_A.detach(), B: made.lora_B.detach()}
    initial = mixed_state(own, mixture)
    assert {name: value.shape for name, value in initial.items()} == {
        OTHER_A: (1, 2), OTHER_B: (2, 1), G: (len(mixture.choices), 2)
    }  # fmt: skip
    assert not any(value.any() for value in initial.values())
    parameters = {name: nn.Parameter(torch.tensor(value)) for name, value in values.items()}
    made.mixture = LayerMixture(mixture, parameters, "q")
    return made


def test_weights_of_a_token() -> None:
    """softmax(ln 3, 0) = 3/4, 1/4: y = x + 2 (3/4 (2, 0) + 1/4 (0, 6)) = (4, 5)."""
    made = layer(Mixture((0, 1)), [[math.log(3), 0.0], [0.0, 0.0]])
    torch.testing.assert_close(made(X), torch.tensor([[[4.0, 5.0]]]))


def test_choices_of_one_lora_add_up_and_the_smallest_is_left_out() -> None:
    """4/7 and 1/7 of own, 2/7 of LoRA 1: y = x + 2 (5/7 (2, 0) + 2/7 (0, 6)); of the two largest: 2/3 and 1/3."""
    router = [[math.log(4), 0.0], [0.0, 0.0], [math.log(2), 0.0]]
    torch.testing.assert_close(layer(Mixture((0, 0, 1)), router)(X), torch.tensor([[[1 + 20 / 7, 2 + 24 / 7]]]))
    found = layer(Mixture((0, 0, 1), top=2), router)(X)
    torch.testing.assert_close(found, torch.tensor([[[1 + 8 / 3, 6.0]]]))


def test_one_lora_is_what_it_is_without_a_mixture(small: Small) -> None:
    """Loss, gradients and answers; the packed passes compute those without. Afterwards nothing is left of it."""
    backbone = small.backbone
    source = torch.Generator().manual_seed(0)
    backbone.load_text_adapter(
        {name: torch.randn(p.shape, generator=source) * 0.05 for name, p in backbone.text_adapter.items()}
    )
    tokens = torch.randn(3, backbone.num_image_tokens, 128, generator=source)
    ids = torch.randint(5, 100, (3, 12), generator=source)
    labels = ids.clone()
    labels[:, :6] = -100
    found = []
    for mixture in (None, Mixture((0,)), None):
        backbone.mix(mixture)
        for parameter in backbone.text_adapter.values():
            parameter.requires_grad_(True).grad = None
        loss = backbone.cross_entropy(tokens, ids, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = {name: parameter.grad for name, parameter in backbone.text_adapter.items()}
        answers = backbone.answer(lambda rows: tokens[rows], ["What is it?", "Where is the dog?", "What is it?"], 8)
        found.append((loss.detach(), gradients, answers))
    torch.testing.assert_close(found[1][:2], found[0][:2], rtol=1e-4, atol=1e-5)
    assert found[1][2] == found[0][2] == found[2][2]
    assert all(torch.equal(found[0][1][name], found[2][1][name]) for name in backbone.text_adapter)


def client_state(value: float) -> State:
    return {A: torch.tensor([[value]]), B: torch.tensor([[2 * value]]), C: torch.tensor([value])}


def test_fedalt() -> None:
    method = FedAlt()
    (phase,) = method.phases(1)
    assert method.mixture(phase, {}) == Mixture((0, 1)) and phase.shared == {"text_adapter", "connector"}
    assert method.payload(ServerState(), CLIENTS[0], phase) == {}
    end = {**client_state(1.0), G: torch.ones(2, 1), OTHER_A: torch.zeros(1, 1), OTHER_B: torch.zeros(1, 1)}
    split = method.split_result(phase, CLIENTS[0], PhaseResult(end, end, {}, {}, 1))
    assert split.shared.keys() == {A, B, C} and split.private.keys() == {A, B, G}
    # Connector: (1 * 1 + 3 * 5 + 1 * 9) / 5 = 5. Of the others: client 0 gets (5 + 9) / 2, whatever their examples.
    sent = [Update(k, "vqa", n, client_state(v)) for k, n, v in ((0, 1, 1.0), (1, 3, 5.0), (2, 1, 9.0))]
    server = method.aggregate(phase, iter(sent), ServerState())
    received = [{name: float(value) for name, value in method.payload(server, each, phase).items()} for each in CLIENTS]
    assert received == [{C: 5.0, OTHER_A: mean, OTHER_B: 2 * mean} for mean in (7.0, 5.0, 3.0)]
    # Client 1 alone takes part: the others' factors are those of the last time. A newcomer gets the mean of all.
    server = method.aggregate(phase, iter([Update(1, "vqa", 3, client_state(2.0))]), server)
    newcomer = ClientInfo(client=7, task="vqa", tasks=("vqa",), seed=0)
    received = [{n: float(v) for n, v in method.payload(server, each, phase).items()} for each in (*CLIENTS, newcomer)]
    assert received == [{C: 2.0, OTHER_A: mean, OTHER_B: 2 * mean} for mean in (5.5, 5.0, 1.5, 4.0)]
    # A client goes on from its own LoRA and router.
    begun = method.initial_state(phase, CLIENTS[0], split.private, method.payload(server, CLIENTS[0], phase))
    assert float(begun[A]) == 1.0 and float(begun[OTHER_A]) == 5.5 and torch.equal(begun[G], torch.ones(2, 1))


def expert(a: float, b: list[float], connector: float = 0.0) -> State:
    return {A: torch.full((1, 2), float(a)), B: torch.tensor(b).float().view(2, 1), C: torch.tensor([float(connector)])}


def test_fedlease_forms_clusters_by_b() -> None:
    """Directions of B: 0 and 90 degrees, two clients each. d = 0 within, 1 between: M = 2 has a silhouette of 1."""
    method = FedLease()
    (phase,) = method.phases(1)
    assert phase.name == "warm_up" and method.mixture(phase, {}) is None
    clients = [ClientInfo(client=k, task="vqa", tasks=("vqa",), seed=0) for k in range(5)]
    ends = [expert(1, [2, 0], 1), expert(3, [0, 1], 2), expert(5, [4, 0], 3), expert(7, [0, 5], 8)]
    split = method.split_result(phase, clients[0], PhaseResult(ends[0], ends[0], {}, {}, 1))
    assert split.shared.keys() == {A, B, C} and split.private.keys() == {A, B}
    server = method.aggregate(phase, iter([Update(k, "vqa", k + 1, e) for k, e in enumerate(ends)]), ServerState())
    assert server.record == {"clusters": {"0": 0, "1": 1, "2": 0, "3": 1}}
    # Experts: plain means over the cluster; the connector: (1 * 1 + 2 * 2 + 3 * 3 + 4 * 8) / 10 = 4.6.
    (phase,) = method.phases(2)
    first = {n: v.flatten().tolist() for n, v in method.payload(server, clients[2], phase).items()}
    names = {A: [3.0, 3.0], B: [3.0, 0.0], OTHER_A: [5.0, 5.0], OTHER_B: [0.0, 3.0]}
    assert first == {C: [pytest.approx(4.6)], **names}
    second = {n: v.flatten().tolist() for n, v in method.payload(server, clients[3], phase).items()}
    assert second == {C: [pytest.approx(4.6)], A: [5.0, 5.0], B: [0.0, 3.0], OTHER_A: [3.0, 3.0], OTHER_B: [3.0, 0.0]}
    # A client without a warm-up joins the larger cluster, or the first of equal ones. M = 2: own expert twice.
    received = method.payload(server, clients[4], phase)
    assert {n: v.flatten().tolist() for n, v in received.items()} == first
    assert method.mixture(phase, received) == Mixture((0, 0, 1), top=2)


def test_fedlease_trains_experts_and_routers_of_clusters() -> None:
    method = FedLease()
    (warm_up,), (phase,) = method.phases(1), method.phases(2)
    ends = [expert(1, [2, 0]), expert(3, [0, 1]), expert(5, [4, 0])]
    server = method.aggregate(warm_up, iter([Update(k, "vqa", 1, e) for k, e in enumerate(ends)]), ServerState())
    assert server.record == {"clusters": {"0": 0, "1": 1, "2": 0}}
    received = method.payload(server, CLIENTS[0], phase)
    begun = method.initial_state(phase, CLIENTS[0], {A: torch.zeros(1, 2)}, received)
    other = method.initial_state(phase, CLIENTS[1], {}, method.payload(server, CLIENTS[1], phase))
    assert torch.equal(begun[A], received[A]) and begun[G].shape == (3, 2) and torch.equal(begun[G], other[G])
    assert 0 < begun[G].abs().max() <= 2**-0.5
    # Cluster 0 sends routers 1 and 3, plain mean 2; cluster 1 takes no part and keeps its expert.
    sent = [
        Update(k, "vqa", n, {**expert(k, [1, k]), G: torch.full((3, 2), g)}) for k, n, g in ((0, 9, 1.0), (2, 1, 3.0))
    ]
    server = method.aggregate(phase, iter(sent), server)
    received = method.payload(server, CLIENTS[0], phase)
    assert {n: v.flatten().tolist() for n, v in received.items() if n != C} == {
        A: [1.0, 1.0], B: [1.0, 1.0], G: [2.0] * 6, OTHER_A: [3.0, 3.0], OTHER_B: [0.0, 1.0]
    }  # fmt: skip
    assert G not in method.payload(server, CLIENTS[1], phase)


def test_number_of_clusters() -> None:
    """Three pairs at 0, 90 and 180 degrees: M = 3, unless a smaller number is the largest that may be tried."""
    ends = [expert(1, b) for b in ([1, 0], [0, 1], [-1, 0], [1, 0], [0, 1], [-1, 0])]
    for method, labels in (
        (FedLease(), [0, 1, 2, 0, 1, 2]),
        (FedLease(max_clusters=2), [0, 0, 1, 0, 0, 1]),
        (FedLease(clusters=1), [0] * 6),
    ):
        (phase,) = method.phases(1)
        server = method.aggregate(phase, iter([Update(k, "vqa", 1, e) for k, e in enumerate(ends)]), ServerState())
        assert list(server.record["clusters"].values()) == labels
    with pytest.raises(ValueError, match="max_clusters: expected at least 2, got 1"):
        FedLease(max_clusters=1)


@pytest.mark.slow
def test_routers_are_trained_and_stay(small: Small) -> None:
    """Exactly the weights of both LoRAs move in training; no message has a router."""
    from pilot.federation.training import client_models
    from pilot.io.atomic import read_json

    run = small.run("fedalt")
    groups = {group for message in read_json(run / "ledger.json")["messages"] for group in message["groups"]}
    assert groups == {"text_adapter", "other_adapter", "connector"}
    models = client_models(small.spec("fedalt"), small.backbone, run)
    states = {clients[0]: load().state() for clients, load in models.items()}
    small.backbone.mix(None)
    routers = [
        {name: value for name, value in state.items() if name.startswith("text_router")} for state in states.values()
    ]
    assert all(value.any() for router in routers for value in router.values())
    assert len({router[next(iter(router))].sum().item() for router in routers}) == len(routers)
