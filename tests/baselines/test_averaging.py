"""FedAvg, FedProx, Local, Central and Untuned."""

import pytest
import torch

from baselines.central import Central
from baselines.fedavg import FedAvg
from baselines.fedprox import FedProx
from baselines.local import Local
from baselines.untuned import Untuned
from pilot.connector.base import PlainConnector, set_trainable
from pilot.connector.projector import Projector
from pilot.methods.averaging import Averaging
from pilot.methods.base import ClientInfo, Method, Phase, ServerState, Update

CLIENT = ClientInfo(client=0, task="vqa", tasks=("vqa",), seed=0)


def update(client: int, count: int, value: float) -> Update:
    return Update(
        client, "vqa", count, {"connector.a": torch.tensor([value]), "text_adapter.b": torch.tensor([-value])}
    )


@pytest.mark.parametrize("method", [FedAvg(), FedProx()])
def test_the_server_averages_by_numbers_of_examples(method: Averaging) -> None:
    # (1 * 2 + 3 * 6) / 4 = 5
    (phase,) = method.phases(1)
    assert phase.shared == phase.trainable == {"connector", "text_adapter"}
    server = method.aggregate(phase, [update(0, 1, 2.0), update(1, 3, 6.0)], ServerState())
    payload = method.payload(server, CLIENT, phase)
    assert {name: value.item() for name, value in payload.items()} == {
        "connector.a": 5.0,
        "text_adapter.b": -5.0,
    }
    assert method.payload(ServerState(), CLIENT, phase) == {}


def test_fedprox_penalty_and_its_gradient_by_hand() -> None:
    # mu / 2 * ((3 - 1)^2 + (0 - 1)^2 + (5 - 2)^2) = 0.25 * 14 = 3.5; gradient mu * (theta - theta_g).
    a, b = torch.tensor([3.0, 0.0], requires_grad=True), torch.tensor([[5.0]], requires_grad=True)
    received = {"connector.a": torch.tensor([1.0, 1.0]), "text_adapter.b": torch.tensor([[2.0]])}
    penalty = FedProx(mu=0.5).penalty({"connector.a": a, "text_adapter.b": b}, received)
    assert penalty.item() == pytest.approx(3.5)
    penalty.backward()
    assert a.grad is not None and a.grad.tolist() == [1.0, -0.5]
    assert b.grad is not None and b.grad.tolist() == [[1.5]]


def test_fedprox_needs_every_received_value_and_a_non_negative_mu() -> None:
    with pytest.raises(ValueError, match=r"connector\.a"):
        FedProx().penalty({"connector.a": torch.ones(1)}, {})
    with pytest.raises(ValueError, match="mu"):
        FedProx(mu=-1)


def test_other_methods_have_no_penalty() -> None:
    assert FedAvg().penalty({}, {}) is None


@pytest.mark.parametrize("method", [Local(), Central()])
def test_nothing_leaves_a_client_without_exchange(method: Method) -> None:
    (phase,) = method.phases(2)
    assert not method.exchanges and not phase.shared and phase.trainable == {"connector", "text_adapter"}
    server = method.aggregate(phase, [update(0, 1, 2.0)], ServerState())
    assert server == ServerState() and method.payload(server, CLIENT, phase) == {}


def test_what_methods_say_of_themselves() -> None:
    assert Central.pooled and not any(m.pooled for m in (FedAvg, FedProx, Local, Untuned))
    assert [m.single_model for m in (FedAvg, FedProx, Central, Untuned, Local)] == [
        True,
        True,
        True,
        True,
        False,
    ]


def test_untuned_never_trains_and_uses_the_projector() -> None:
    assert Untuned().phases(1) == ()
    projector, features = Projector(3, 4), torch.ones(1, 2, 3)
    phase = Phase(name="none", trainable=frozenset(), shared=frozenset())
    connector = Untuned().make_connector(phase, CLIENT, projector)
    assert torch.equal(connector(features).tokens_BNC, projector(features))


def test_gradients_reach_the_connector() -> None:
    method = FedAvg()
    (phase,) = method.phases(1)
    connector = method.make_connector(phase, CLIENT, Projector(3, 4))
    assert isinstance(connector, PlainConnector)
    set_trainable(connector, phase.trainable)
    connector(torch.ones(1, 2, 3)).tokens_BNC.sum().backward()
    assert all(p.grad is not None for p in connector.parameters())
