"""FedAvgM, FedAdam, FedYogi, FedAdagrad and FedIT."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch

from baselines.fedadagrad import FedAdagrad
from baselines.fedadam import FedAdam
from baselines.fedavgm import FedAvgM
from baselines.fedit import FedIT
from baselines.fedyogi import FedYogi
from pilot.methods.base import ClientInfo, PhaseResult, ServerState, Update
from pilot.methods.robust import coordinate_median
from pilot.methods.server_optimiser import ServerOptimiser

CLIENTS = tuple(ClientInfo(client=k, task="vqa", tasks=("vqa",), seed=0) for k in range(2))
NAME = "connector.a"


def update(client: int, count: int, *values: float) -> Update:
    return Update(client, "vqa", count, {NAME: torch.tensor(values)})


def run(method: ServerOptimiser, rounds: Sequence[Sequence[Update]], start: Sequence[float]) -> list[ServerState]:
    """The server after every round."""
    server, history = method.initial_server_state({NAME: torch.tensor(start)}, CLIENTS), []
    for number, updates in enumerate(rounds, 1):
        (phase,) = method.phases(number)
        server = method.aggregate(phase, iter(updates), server)
        history.append(server)
    return history


def sent(method: ServerOptimiser, server: ServerState) -> list[float]:
    payload = method.payload(server, CLIENTS[0], method.phases(1)[0])
    assert payload.keys() == {NAME}
    return payload[NAME].tolist()


def test_fedavgm_by_hand() -> None:
    # Round 1: the mean is (1 * 2 + 3 * 6) / 4 = 5, Delta = 5 - 1 = 4, v = 4, theta = 1 + 4 = 5.
    # Round 2: both send 6: Delta = 1, v = 0.5 * 4 + 1 = 3, theta = 5 + 3 = 8.
    method = FedAvgM(beta=0.5)
    history = run(method, [[update(0, 1, 2.0), update(1, 3, 6.0)], [update(0, 1, 6.0), update(1, 3, 6.0)]], [1.0])
    assert [sent(method, server) for server in history] == [[5.0], [8.0]]
    assert [server.record for server in history] == [
        {"delta_norm": 4.0, "step_norm": 4.0}, {"delta_norm": 1.0, "step_norm": 3.0},
    ]  # fmt: skip


def test_fedavgm_without_momentum_is_fedavg() -> None:
    method = FedAvgM(beta=0.0)
    history = run(method, [[update(0, 1, 2.0), update(1, 3, 6.0)], [update(0, 2, 3.0)]], [1.0])
    assert [sent(method, server) for server in history] == [[5.0], [3.0]]


# All three: eta 1, tau 3, so v_0 = 9. Round 1: Delta = (1 * 2 + 3 * 6) / 4 - 1 = 4. Round 2: Delta = 2.
# Adam, beta1 = beta2 = 0.5: m = 2, v = 4.5 + 8 = 12.5; then m = 1 + 1 = 2, v = 6.25 + 2 = 8.25.
# Yogi: m the same; v = 9 - 0.5 * 16 * sign(9 - 16) = 17; then v = 17 - 0.5 * 4 * sign(17 - 4) = 15.
# Adagrad, beta1 = 0: m = 4, v = 9 + 16 = 25, step 4 / (5 + 3) = 0.5; then m = 2, v = 25 + 4 = 29.
ADAPTIVE: dict[str, tuple[ServerOptimiser, list[tuple[float, float]]]] = {
    "fedadam": (FedAdam(eta=1, beta1=0.5, beta2=0.5, tau=3), [(2, 12.5), (2, 8.25)]),
    "fedyogi": (FedYogi(eta=1, beta1=0.5, beta2=0.5, tau=3), [(2, 17), (2, 15)]),
    "fedadagrad": (FedAdagrad(eta=1, tau=3), [(4, 25), (2, 29)]),
}


@pytest.mark.parametrize(("method", "moments"), ADAPTIVE.values(), ids=ADAPTIVE)
def test_adaptive_optimisers_by_hand(method: ServerOptimiser, moments: list[tuple[float, float]]) -> None:
    (phase,) = method.phases(1)
    server, theta = method.initial_server_state({NAME: torch.tensor([1.0])}, CLIENTS), 1.0
    rounds: list[Callable[[float], list[Update]]] = [
        lambda theta: [update(0, 1, 2.0), update(1, 3, 6.0)],
        lambda theta: [update(0, 5, theta + 2), update(1, 7, theta + 2)],
    ]
    for updates, (m, v) in zip(rounds, moments, strict=True):
        server = method.aggregate(phase, updates(theta), server)
        theta += m / (math.sqrt(v) + 3)
        assert sent(method, server) == pytest.approx([theta])
        assert server.shared[f"first_moment.{NAME}"].item() == pytest.approx(m)
        assert server.shared[f"second_moment.{NAME}"].item() == pytest.approx(v)
    assert server.record["delta_norm"] == pytest.approx(2.0)


def test_adagrad_step_is_exact_where_the_root_is() -> None:
    assert sent(FedAdagrad(eta=1, tau=3), run(FedAdagrad(eta=1, tau=3), [[update(0, 1, 5.0)]], [1.0])[0]) == [1.5]


@pytest.mark.parametrize("method", [FedAvgM(), FedAdam(), FedYogi(), FedAdagrad()], ids=lambda method: method.name)
class TestEveryServerOptimiser:
    def test_round_1_sends_nothing_and_later_rounds_the_model_alone(self, method: ServerOptimiser) -> None:
        (phase,) = method.phases(1)
        server = method.initial_server_state({NAME: torch.tensor([1.0])}, CLIENTS)
        assert method.payload(server, CLIENTS[0], phase) == {}
        server = method.aggregate(phase, [update(0, 1, 2.0)], server)
        assert method.payload(server, CLIENTS[0], phase).keys() == {NAME}
        assert not any(name.startswith("initial") for name in server.shared)

    def test_a_robust_mean_takes_the_place_of_the_weighted_one(self, method: ServerOptimiser) -> None:
        # Median 3 of 2, 3, 1e6: as if everybody had sent 3.
        (phase,) = method.phases(1)
        server = method.initial_server_state({NAME: torch.tensor([1.0])}, CLIENTS)
        hostile = [update(0, 1, 2.0), update(1, 1, 3.0), update(2, 9, 1e6)]
        expected = method.aggregate(phase, [update(0, 1, 3.0)], server)
        robust = method.aggregate(phase, iter(hostile), server, coordinate_median)
        assert sent(method, robust) == sent(method, expected) and robust.record == expected.record

    def test_the_norm_of_delta_is_over_all_tensors(self, method: ServerOptimiser) -> None:
        # Delta = (3, 0) and 4: norm 5.
        (phase,) = method.phases(1)
        names = ("connector.a", "text_adapter.b")
        start = {names[0]: torch.tensor([1.0, 1.0]), names[1]: torch.tensor([[1.0]])}
        end = {names[0]: torch.tensor([4.0, 1.0]), names[1]: torch.tensor([[5.0]])}
        server = method.aggregate(phase, [Update(0, "vqa", 3, end)], method.initial_server_state(start, CLIENTS))
        assert server.record["delta_norm"] == 5.0


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda: FedAvgM(beta=1.0), "beta"), (lambda: FedAdam(eta=0.0), "eta"), (lambda: FedAdam(beta1=1.0), "beta1"),
        (lambda: FedAdam(beta2=1.0), "beta2"), (lambda: FedYogi(tau=0.0), "tau"),
        (lambda: FedYogi(beta2=-0.1), "beta2"), (lambda: FedAdagrad(eta=-1.0), "eta"),
        (lambda: FedAdagrad(beta1=-0.1), "beta1"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_named(make: Callable[[], ServerOptimiser], option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option}: expected"):
        make()


def test_fedit_averages_lora_and_leaves_the_connector_alone() -> None:
    # (1 * 2 + 3 * 6) / 4 = 5; the connector is neither trained nor sent.
    method, name = FedIT(), "text_adapter.q.lora_A"
    (phase,) = method.phases(1)
    assert phase.trainable == phase.shared == {"text_adapter"}
    end = {name: torch.tensor([2.0]), NAME: torch.tensor([7.0])}
    shared = method.split_result(phase, CLIENTS[0], PhaseResult(end, end, {}, {}, 1)).shared
    assert shared.keys() == {name}
    updates = [Update(0, "vqa", 1, shared), Update(1, "vqa", 3, {name: torch.tensor([6.0])})]
    server = method.aggregate(phase, updates, ServerState())
    assert {key: value.tolist() for key, value in method.payload(server, CLIENTS[0], phase).items()} == {name: [5.0]}
