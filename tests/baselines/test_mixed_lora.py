"""Several LoRAs in each layer, FedALT, FedLEASE, FedDPA and DISCO, by hand."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from baselines.disco import Disco, group_weights
from baselines.fedalt import FedAlt
from baselines.feddpa import FedDpa, weights
from baselines.fedlease import FedLease
from pilot.backbone.lora import LoraLinear
from pilot.backbone.mixed import LayerMixture
from pilot.backbone.passes import questions_of
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
    initial = mixed_state(own, mixture, 5)
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


def test_weights_of_a_question() -> None:
    """g = 3/4, 1/4 of the first question and 0, 1 of the second, for each of its tokens."""
    mixture = Mixture((0, 1), weigh=lambda features, references: features, references=("a",))
    made = layer(Mixture((0, 1)), [[0.0, 0.0]] * 2)
    own = {A: made.lora_A.detach(), B: made.lora_B.detach()}
    shapes = {name: tuple(value.shape) for name, value in mixed_state(own, mixture, 5).items()}
    assert shapes == {OTHER_A: (1, 2), OTHER_B: (2, 1), "question_feature.a": (5,)}
    parameters = {
        OTHER_A: nn.Parameter(torch.tensor([[0.0, 1.0]])),
        OTHER_B: nn.Parameter(torch.tensor([[0.0], [3.0]])),
    }
    made.mixture = LayerMixture(mixture, parameters, "q", lambda: torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
    found = made(X.expand(2, 3, 2))
    torch.testing.assert_close(found, torch.tensor([[4.0, 5.0], [1.0, 14.0]])[:, None].expand(2, 3, 2))


def test_each_question_gets_its_own_weights(small: Small) -> None:
    """A batch in which one question chooses the other LoRA: logits and answers are those of the chosen one alone."""
    backbone = small.backbone
    source = torch.Generator().manual_seed(1)
    loras = [{n: torch.randn(p.shape, generator=source) * 0.1 for n, p in backbone.text_adapter.items()} for _ in "01"]
    tokens = torch.randn(3, backbone.num_image_tokens, 128, generator=source)
    questions = ["What color is the dog?", "How many cats?", "Where is it?"]
    prompts = [backbone.prompt_ids(question) for question in questions]
    rows = [[*prompt, *backbone.answer_ids("a dog")] for prompt in prompts]
    ids = torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])
    labels = ids.clone()
    for row, prompt in enumerate(prompts):
        labels[row, : len(prompt)] = labels[row, len(rows[row]) :] = -100
    assert questions_of(ids, labels) == prompts
    features = backbone.question_features(prompts)
    mean = backbone.embed(torch.tensor(prompts[0])).mean(dim=0)
    torch.testing.assert_close(features[0], (mean / mean.norm()).detach())

    def compute() -> tuple[list[torch.Tensor], list[str]]:
        with torch.no_grad():
            alone = [backbone.logits(tokens[[k]], ids[[k]], labels[[k]])[0] for k in range(3)]
        return alone, backbone.answer(lambda chosen: tokens[chosen], questions, 6)

    expected = []
    for lora in loras:
        backbone.mix(None)
        backbone.load_text_adapter(lora)
        expected.append(compute())
    assert expected[0][1] != expected[1][1]

    def weigh(asked: torch.Tensor, references: Any) -> torch.Tensor:
        other = (asked @ references["second"] > 0.9999).float()
        return torch.stack([1 - other, other], dim=1)

    added = backbone.mix(Mixture((0, 1), weigh=weigh, references=("second",)))
    backbone.load_text_adapter(loras[0])
    with torch.no_grad():
        for name, parameter in added.items():
            own = name.replace("other_adapter.1", "text_adapter")
            parameter.copy_(features[1] if name == "question_feature.second" else loras[1][own])
        together = backbone.logits(tokens, ids, labels)[0]
    found = compute()
    backbone.mix(None)
    wanted = [expected[place][0][row] for row, place in enumerate((0, 1, 0))]
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together, torch.cat(wanted), rtol=1e-4, atol=1e-4)
    assert found[1] == [expected[place][1][row] for row, place in enumerate((0, 1, 0))]


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


def test_fedlease_remembers_who_missed_the_last_round_of_the_warm_up() -> None:
    """Client 3 trains in round 1 alone: it stays in cluster 1, whose A is (3 + 7) / 2 = 5 and B (0, (1 + 5) / 2)."""
    method = FedLease(warm_up=2)
    (first,), (second,), (phase,) = (method.phases(number) for number in (1, 2, 3))
    ends = [expert(9, [1, 0]), expert(9, [0, 1]), expert(9, [1, 0]), expert(7, [0, 5])]
    server = method.aggregate(first, iter([Update(k, "vqa", 1, e) for k, e in enumerate(ends)]), ServerState())
    ends = [expert(1, [2, 0]), expert(3, [0, 1]), expert(5, [4, 0])]
    server = method.aggregate(second, iter([Update(k, "vqa", 1, e) for k, e in enumerate(ends)]), server)
    assert server.record == {"clusters": {"0": 0, "1": 1, "2": 0, "3": 1}}
    received = method.payload(server, ClientInfo(client=3, task="vqa", tasks=("vqa",), seed=0), phase)
    found = {name: value.flatten().tolist() for name, value in received.items() if name != C}
    assert found == {A: [5.0, 5.0], B: [0.0, 3.0], OTHER_A: [3.0, 3.0], OTHER_B: [3.0, 0.0]}
    trained = method.aggregate(phase, iter([Update(0, "vqa", 1, {**ends[0], G: torch.ones(3, 2)})]), server)
    assert all(state.keys() == {"cluster"} for state in trained.per_client.values()), "adapters are kept until then"
    assert FedLease().aggregate(first, iter([Update(0, "vqa", 1, ends[0])]), ServerState()).per_client[0].keys() == {
        "cluster"
    }  # fmt: skip


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


OWN, CENTRE = "question_feature.own", "question_feature.centre"


def asked(value: float, feature: list[float]) -> State:
    return {
        A: torch.tensor([[value]]),
        B: torch.tensor([[2 * value]]),
        C: torch.tensor([value]),
        OWN: torch.tensor(feature),
    }


def test_disco() -> None:
    method = Disco()
    (phase,) = method.phases(1)
    answer = method.final_phase(12)
    assert phase.questions and "question_feature" in phase.shared and method.mixture(answer, {}) is None
    # Features (1, 0), (1, 0), (0, 1): the centre is (2/3, 1/3), from which the third lies opposite the first two.
    clients = [ClientInfo(client=k, task="vqa", tasks=("vqa",), seed=0) for k in range(5)]
    sent = [Update(k, "vqa", n, asked(v, f)) for k, n, v, f in
            ((0, 1, 1.0, [1.0, 0.0]), (1, 3, 5.0, [1.0, 0.0]), (2, 1, 9.0, [0.0, 1.0]))]  # fmt: skip
    server = method.aggregate(phase, iter(sent), ServerState())
    assert server.record == {"groups": {"0": 0, "1": 0, "2": 1}}
    torch.testing.assert_close(server.shared[CENTRE], torch.tensor([2 / 3, 1 / 3]))
    # (1 * 1 + 3 * 5) / 4 = 4 in group 0, 9 in group 1; the connector: (1 + 15 + 9) / 5 = 5.
    received = [{n: v.flatten().tolist() for n, v in method.payload(server, each, phase).items()} for each in clients]
    assert received[1] == {A: [4.0], B: [8.0], C: [5.0]} and received[2] == {A: [9.0], B: [18.0], C: [5.0]}
    assert received[4] == {C: [5.0]}
    # For answers: the client's own group first, and both features.
    payload = method.payload(server, clients[2], answer)
    assert {n: v.flatten().tolist() for n, v in payload.items() if n != CENTRE} == {
        A: [9.0], B: [18.0], C: [5.0], OTHER_A: [4.0], OTHER_B: [8.0],
        "question_feature.0": [0.0, 1.0], "question_feature.1": [1.0, 0.0],
    }  # fmt: skip
    mixture = method.mixture(answer, payload)
    assert mixture is not None and mixture.choices == (0, 1) and mixture.references == ("centre", "0", "1")
    # cos = -1 and 1; softmax(-1 / 2, 1 / 2).
    references = {name: payload[f"question_feature.{name}"] for name in mixture.references}
    found = group_weights(2.0, torch.tensor([[1.0, 0.0]]), references)
    torch.testing.assert_close(found, torch.tensor([[1 / (1 + math.e), math.e / (1 + math.e)]]))
    # Later client 3 joins group 1, cos 1; (0 * 1 + 1 * 1) stays; client 4's (-1, 0) opens a third group.
    sent = [Update(3, "vqa", 1, asked(1.0, [0.0, 1.0])), Update(4, "vqa", 2, asked(2.0, [-1.0, 0.0]))]
    server = method.aggregate(phase, iter(sent), server)
    assert server.record == {"groups": {"0": 0, "1": 0, "2": 1, "3": 1, "4": 2}}
    assert [float(server.shared[f"group.{j}.count.examples"]) for j in range(3)] == [4.0, 2.0, 2.0]
    assert float(server.shared[f"group.1.{A}"]) == 1.0 and float(server.shared[f"group.0.{A}"]) == 4.0
    # Group 0 again, with another feature: (4 * (1, 0) + 4 * (0, 1)) / 8.
    server = method.aggregate(phase, iter([Update(0, "vqa", 4, asked(3.0, [0.0, 1.0]))]), server)
    assert server.shared[f"group.0.{OWN}"].tolist() == [0.5, 0.5] and server.record["groups"]["0"] == 0


def test_feddpa() -> None:
    method = FedDpa()
    (only,), (local, last) = method.phases(1), method.phases(2)
    assert (only.share_of_steps, local.share_of_steps, last.share_of_steps) == (1.0, 0.5, 0.5)
    assert local.trainable == {"text_adapter"} and local.shared == frozenset() and local.questions
    assert method.mixture(last, {}) is None and method.mixture(local, {}) == method.mixture(local, {})
    updates = [Update(0, "vqa", 1, client_state(1.0)), Update(1, "vqa", 3, client_state(5.0))]
    server = method.aggregate(only, iter(updates), ServerState())
    payload = method.payload(server, CLIENTS[0], local)
    assert {name: float(value) for name, value in payload.items()} == {C: 4.0, OTHER_A: 4.0, OTHER_B: 8.0}
    # Local steps move the local LoRA to 7 and 14; then the global phase begins from what was received.
    end = {**payload, A: torch.tensor([[7.0]]), B: torch.tensor([[14.0]]), OWN: torch.tensor([0.6, 0.8])}
    split = method.split_result(local, CLIENTS[0], PhaseResult({**end, OWN: torch.zeros(2)}, end, {}, payload, 1))
    assert split.shared == {}
    begun = method.initial_state(last, CLIENTS[0], split.private, method.payload(server, CLIENTS[0], last))
    assert {name: float(value) for name, value in begun.items()} == {A: 4.0, B: 8.0, C: 4.0}
    trained = client_state(6.0)
    sent = method.split_result(last, CLIENTS[0], PhaseResult(begun, trained, split.private, {}, 1))
    assert sent.shared == trained and sent.private.keys() == {f"personal.{A}", f"personal.{B}", OWN}
    # Answers: both, and the next local phase goes on from the local one.
    answer = method.final_phase(12)
    model = method.initial_state(answer, CLIENTS[0], sent.private, method.payload(server, CLIENTS[0], answer))
    assert (float(model[A]), float(model[OTHER_A]), float(model[C])) == (7.0, 4.0, 4.0) and OWN in model
    # f = (1, 0): the mean cosine is 0.6, a = 0.5 * 0.6; without questions of one's own the global LoRA answers alone.
    features, references = torch.tensor([[1.0, 0.0]]), {"own": model[OWN]}
    torch.testing.assert_close(weights(0.5, False, features, references), torch.tensor([[0.3, 0.7]]))
    torch.testing.assert_close(weights(0.5, True, features, references), torch.tensor([[0.7, 0.3]]))
    assert weights(0.5, True, features, {"own": torch.zeros(2)}).tolist() == [[0.0, 1.0]]


def test_feddpa_without_a_global_model_starts_from_the_seeds() -> None:
    """The frozen global LoRA of the local phase is zero then, and zeros in both factors could never be trained."""
    method = FedDpa()
    local, last = method.phases(2)
    start = {**client_state(1.0), OTHER_A: torch.zeros(1, 1), OTHER_B: torch.zeros(1, 1), OWN: torch.zeros(2)}
    split = method.split_result(local, CLIENTS[0], PhaseResult(start, {**start, A: torch.ones(1, 1)}, {}, {}, 1))
    assert split.private.keys() == {f"personal.{A}", f"personal.{B}", OWN}
    assert method.initial_state(last, CLIENTS[0], split.private, {}) == {}


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
