"""FedMoE: the choice of experts, averages over holders, and what travels."""

import pytest
import torch

from baselines.fedmoe import FedMoE
from pilot.connector.base import set_trainable
from pilot.connector.mixture import ExpertMixture
from pilot.connector.projector import Projector
from pilot.methods.base import ClientInfo, Phase, ServerState, State, Update, select, weighted_mean
from pilot.methods.experts import choose_experts, expert_of, mean_over_holders, recommend_experts

TASKS = ("vqa", "caption")


def client(number: int) -> ClientInfo:
    return ClientInfo(client=number, task=TASKS[number % 2], tasks=TASKS, seed=0)


def test_expert_choice_by_hand() -> None:
    assert choose_experts([0.5, 0.1, 0.4], 0.8) == (0, 2)  # 0.5, then 0.9 >= 0.8
    assert choose_experts([0.5, 0.1, 0.4], 0.5) == (0,)
    assert choose_experts([0.5, 0.1, 0.4], 0.95) == (0, 1, 2)
    assert choose_experts([0.25, 0.25, 0.25, 0.25], 0.5) == (0, 1)  # ties by index
    assert choose_experts([0.1] * 10, 0.3) == (0, 1, 2)  # 0.1 + 0.1 + 0.1 > 0.3 only by rounding
    assert choose_experts([1.0, 0.0], 1.0) == (0,)
    for bad in ([0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0]):
        with pytest.raises(ValueError, match="activation probabilities"):
            choose_experts(bad, 0.8)


def test_holder_averages_by_hand() -> None:
    def update(number: int, count: int, **experts: float) -> Update:
        state = {f"experts.{name[1:]}.w": torch.tensor([value]) for name, value in experts.items()}
        return Update(number, "vqa", count, state)

    previous = {f"experts.{i}.w": torch.tensor([9.0]) for i in range(3)}
    updates = [update(0, 1, e0=0.0), update(1, 3, e0=4.0, e1=5.0)]
    # Expert 0: (1 * 0 + 3 * 4) / 4 = 3; expert 1 has one holder: copied; expert 2 has none: unchanged.
    result = mean_over_holders(updates, previous, weighted_mean)
    assert {name: value.item() for name, value in result.items()} == {
        "experts.0.w": 3,
        "experts.1.w": 5,
        "experts.2.w": 9,
    }
    assert previous["experts.0.w"].item() == 9.0


def test_expert_of() -> None:
    assert expert_of("experts.3.linear_1.weight") == 3 and expert_of("router.12.weight") == 12
    assert expert_of("text_adapter.3.lora_A") is None


def trained(
    method: FedMoE, number: int, probabilities: list[float], server: ServerState, round_number: int, loss: float = 1.0
) -> Update:
    """An update whose tensors are all shifted by the client's number."""
    (phase,) = method.phases(round_number)
    received = method.payload(server, client(number), phase)
    connector = method.make_connector(phase, client(number), Projector(3, 4), received)
    connector.load_state_dict(select(received, {"experts", "router"}), strict=bool(received))
    text: State = {"text_adapter.q.lora_A": torch.zeros(1, 2)}
    state = {name: value.clone() + number for name, value in (connector.state_dict() | text).items()}
    statistics = {"activation_probabilities": torch.tensor(probabilities), "validation_loss": torch.tensor([loss])}
    return Update(number, client(number).task, 1, select(state, phase.shared), statistics)


def test_clients_hold_train_and_send_their_experts_only() -> None:
    torch.manual_seed(0)
    method = FedMoE(num_experts=3, theta=0.8)
    (search,), (train,) = method.phases(1), method.phases(2)
    assert (search.name, train.name) == ("search", "train") and search.validates and train.validates
    assert search.statistics == train.statistics == {"activation_probabilities": (3,), "validation_loss": (1,)}
    updates = [trained(method, k, p, ServerState(), 1) for k, p in enumerate(([0.9, 0.1, 0.0], [0.5, 0.0, 0.5]))]
    server = method.aggregate(search, updates[::-1], ServerState())
    assert server.record == {"experts": {"0": [0], "1": [0, 2]}, "tried": []}

    payload = method.payload(server, client(0), train)
    assert {expert_of(name) for name in payload} == {0, None}
    second = [trained(method, k, [], server, 2, loss=0.5) for k in range(2)]
    assert {expert_of(name) for name in second[1].state} == {0, 2, None}
    after = method.aggregate(train, second, server)
    before = server.shared
    assert torch.equal(after.shared["experts.1.linear_1.weight"], before["experts.1.linear_1.weight"])
    # Shifts: expert 0 by (0 + 1) / 2, expert 2 by 1 (its only holder), its router row likewise.
    for name, shift in (
        ("experts.0.linear_2.bias", 0.5),
        ("router.2.weight", 1.0),
        ("text_adapter.q.lora_A", None),
    ):
        expected = before[name] + shift if shift is not None else torch.full((1, 2), 0.5)
        torch.testing.assert_close(after.shared[name], expected)
    assert after.record == server.record


def test_a_client_without_chosen_experts_holds_all() -> None:
    method = FedMoE(num_experts=3)
    (search,), (train,) = method.phases(1), method.phases(2)
    server = method.aggregate(search, [trained(method, 0, [1.0, 0.0, 0.0], ServerState(), 1)], ServerState())
    assert {expert_of(name) for name in method.payload(server, client(1), train)} == {0, 1, 2, None}
    connector = method.make_connector(train, client(1), Projector(3, 4), {})
    assert isinstance(connector, ExpertMixture) and connector.held == [0, 1, 2]
    with pytest.raises(ValueError, match="received"):
        method.make_connector(train, client(1), Projector(3, 4))


def test_recommendation_by_hand() -> None:
    """theta 0.8: p_k = (.85, .15, 0, 0) gives S_k = {0}, p_a = (.6, .3, .1, 0) gives S_a = {0, 1}."""
    probabilities = {
        7: torch.tensor([0.85, 0.15, 0.0, 0.0]),
        2: torch.tensor([0.6, 0.3, 0.1, 0.0]),  # cos = (.51 + .045) / (.8631 * .6782) = .948
        4: torch.tensor([0.0, 0.0, 0.2, 0.8]),  # cos = 0
    }
    held = {client: choose_experts(p.tolist(), 0.8) for client, p in probabilities.items()}
    assert held == {7: (0,), 2: (0, 1), 4: (3,)}
    # K = 1: n = 2 - 1 = 1, and of the experts outside S_k expert 1 has the largest p.
    assert recommend_experts(7, probabilities, held, 1) == (0, 1)
    # K = 2: n = (2 + 1) / 2 - 1 = 0.5, rounded up; p = p_a, since client 4 weighs nothing.
    assert recommend_experts(7, probabilities, held, 2) == (0, 1)
    # Client 2: nearest is 7, n = 1 - 2 = -1; p = p_7, so expert 1 is the worst of {0, 1}.
    assert recommend_experts(2, probabilities, held, 1) == (0,)
    # Client 4: both cosines of 0 and .02 / (.825 * .678) = .036; nearest is 2, n = 2 - 1; p = p_2: expert 0.
    assert recommend_experts(4, probabilities, held, 1) == (0, 3)
    # p weighs by similarity: (.9 .1 0) is near (.8 .2 0) and far from (0 .3 .7), whose S = {1, 2} alone has two.
    three = {0: torch.tensor([0.9, 0.1, 0.0]), 1: torch.tensor([0.8, 0.2, 0.0]), 2: torch.tensor([0.0, 0.3, 0.7])}
    assert recommend_experts(0, three, {0: [0], 1: [0], 2: [1, 2]}, 2) == (0, 1)  # .99 * .2 + .04 * .3 > .04 * .7
    assert recommend_experts(0, {0: three[0]}, {0: [0]}, 3) == (0,)  # nobody else


def test_who_does_not_improve_tries_what_similar_clients_hold() -> None:
    """Clients 0 and 1 of the example above. Client 0's losses: 1.0, then 1.0 (no better: tries expert 1)."""
    torch.manual_seed(0)
    method = FedMoE(num_experts=4, theta=0.8, num_neighbors=1)
    (search,), (train,), final = method.phases(1), method.phases(2), method.final_phase(9)
    shares = ([0.85, 0.15, 0.0, 0.0], [0.6, 0.3, 0.1, 0.0])
    server = method.aggregate(search, [trained(method, k, shares[k], ServerState(), 1) for k in (0, 1)], ServerState())

    def after(server: ServerState, number: int, loss: float) -> ServerState:
        own = trained(method, 0, [1.0, 0.0, 0.0, 0.0], server, number, loss)
        return method.aggregate(train, [own, trained(method, 1, shares[1], server, number, 1 / number)], server)

    def experts(server: ServerState, phase: Phase) -> set[int | None]:
        return {expert_of(name) for name in method.payload(server, client(0), phase)} - {None}

    trying = after(server, 2, 1.0)
    assert trying.record == {"experts": {"0": [0, 1], "1": [0, 1]}, "tried": [0]}
    assert experts(trying, train) == {0, 1} and experts(trying, final) == {0}  # nothing untried is evaluated
    kept = after(trying, 3, 0.9)  # 0.9 < 1.0: it helped
    assert kept.record["tried"] == [] and experts(kept, train) == experts(kept, final) == {0, 1}
    back = after(trying, 3, 1.0)  # it did not
    assert back.record["tried"] == [] and experts(back, train) == experts(back, final) == {0}
    assert experts(after(back, 4, 0.95), train) == {0}  # better than 1.0, the last with this set
    assert experts(after(back, 4, 1.0), train) == {0, 1}  # it tries again
    # With two experts, it is no better than its neighbour: n = 0.
    assert after(kept, 4, 2.0).record == {"experts": {"0": [0, 1], "1": [0, 1]}, "tried": []}


def test_who_missed_the_search_is_searched_when_it_first_takes_part() -> None:
    torch.manual_seed(0)
    method = FedMoE(num_experts=3)
    (search,), (train,) = method.phases(1), method.phases(2)
    server = method.aggregate(search, [trained(method, 0, [1.0, 0.0, 0.0], ServerState(), 1)], ServerState())
    late = trained(method, 1, [0.1, 0.0, 0.9], server, 2, loss=3.0)
    assert {expert_of(name) for name in late.state} == {0, 1, 2, None}
    after = method.aggregate(train, [late], server)
    assert after.record == {"experts": {"0": [0], "1": [2]}, "tried": []}


def test_gradients_reach_held_experts_and_router() -> None:
    method = FedMoE(num_experts=3)
    (phase,) = method.phases(2)
    received = {"experts.0.linear_1.bias": torch.zeros(4), "experts.2.linear_1.bias": torch.zeros(4)}
    connector = method.make_connector(phase, client(0), Projector(3, 4), received)
    set_trainable(connector, phase.trainable)
    output = connector(torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)))
    assert output.terms.keys() == phase.loss_weights.keys()
    (output.tokens_BNC.square().sum() + output.terms["load_balance"]).backward()
    reached = {".".join(name.split(".")[:2]) for name, p in connector.named_parameters() if p.grad is not None}
    assert reached == {"experts.0", "experts.2", "router.0", "router.2"}


def test_options_are_checked() -> None:
    for bad in ({"top_k": 9}, {"theta": 0.0}, {"load_balance": -1.0}, {"num_neighbors": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            FedMoE(**bad)  # type: ignore[arg-type]
