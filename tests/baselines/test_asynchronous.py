"""FedAsync, FedBuff and FedASMU, by hand."""

import pytest
import torch

from baselines.fedasmu import FedAsmu
from baselines.fedasync import FedAsync
from baselines.fedbuff import FedBuff
from pilot.methods.asynchronous import Asynchronous
from pilot.methods.base import ClientInfo, ServerState, Update

W = "text_adapter.q.lora_B"
CLIENTS = [ClientInfo(client=k, task="vqa", tasks=("vqa",), seed=0) for k in range(3)]


def start(method: Asynchronous, value: float, version: int = 0) -> ServerState:
    server = method.initial_server_state({W: torch.tensor([value])}, CLIENTS)
    return later(server, version)


def later(server: ServerState, changes: int) -> ServerState:
    version = server.shared["clock.version"] + changes
    return ServerState({**server.shared, "clock.version": version}, server.per_client, server.record)


def begin(method: Asynchronous, server: ServerState, client: int, value: float) -> ServerState:
    (phase,) = method.phases(1)
    return method.aggregate(phase, iter([Update(client, "vqa", 5, {W: torch.tensor([value])})]), server)


def stale(method: Asynchronous, first: float, sent: float, staleness: int, version: int = 0) -> ServerState:
    """Client 0's update arrives after `staleness` changes of a model that stays `first`."""
    server = begin(method, start(method, first, version - staleness), 0, sent)
    return method.arrive(later(server, staleness), 0)


@pytest.mark.parametrize(
    ("method", "staleness", "expected"),
    [
        (FedAsync(), 3, 1.6),  # a = .6 / sqrt(4) = .3: .7 * 1 + .3 * 3
        (FedAsync(), 0, 2.2), (FedAsync(staleness="constant"), 3, 2.2),
        (FedAsync(staleness="hinge"), 4, 2.2),
        (FedAsync(staleness="hinge"), 5, 1 + 2 * 0.6 / 11),  # 1 / (10 * 1 + 1)
    ],
)  # fmt: skip
def test_fedasync(method: FedAsync, staleness: int, expected: float) -> None:
    server = stale(method, 1.0, 3.0, staleness)
    assert server.shared[W].item() == pytest.approx(expected) and server.per_client == {}
    (row,) = server.record["arrivals"]
    assert (row["client"], row["staleness"]) == (0, staleness)


def test_fedasync_penalty() -> None:
    trainable, received = {W: torch.tensor([3.0])}, {W: torch.tensor([1.0])}
    penalty = FedAsync(proximal=0.5).penalty(trainable, received)
    assert penalty is not None and penalty.item() == 1.0 and FedAsync().penalty(trainable, received) is None


def test_fedasmu() -> None:
    # The tenth model: xi = 1 / sqrt(10), a = .316 / 1.316 = .2403; stale by 3: sigma .5 halves xi, 1 quarters it.
    for sigma, staleness, weight in ((0.5, 0, 0.2403), (0.5, 3, 0.1365), (1.0, 3, 0.0733)):
        server = stale(FedAsmu(sigma=sigma), 0.0, 1.0, staleness, version=9)
        assert server.shared[W].item() == pytest.approx(weight, abs=5e-5)


def test_fedbuff_changes_the_model_when_the_buffer_is_full() -> None:
    """Deltas 1 and 2, stale by 0 and 3: (1 + 2 / sqrt(4)) / 2 = +1; the delta is against the client's own start."""
    method = FedBuff(buffer=2)
    server = begin(method, start(method, 10.0, 2), 1, 12.0)  # from the model 10, version 2
    server = ServerState({**server.shared, W: torch.tensor([20.0])}, server.per_client, server.record)
    server = later(server, 3)
    server = begin(method, server, 0, 21.0)
    assert (method.payload(server, CLIENTS[2], method.phases(1)[0])[W]).item() == 20.0
    server = method.arrive(server, 0)
    assert server.shared[W].item() == 20.0 and server.shared["clock.version"].item() == 5
    server = method.arrive(server, 1)
    assert server.shared[W].item() == pytest.approx(21.0) and server.shared["clock.version"].item() == 6
    assert [row["staleness"] for row in server.record["arrivals"]] == [0, 3]
    assert not [name for name in server.shared if name.startswith("buffer.")] and server.per_client == {}
    # An arrival of a client whose update was refused changes nothing.
    assert method.arrive(server, 2) is server


def test_nothing_is_sent_down_before_the_first_change() -> None:
    method = FedAsync()
    (phase,) = method.phases(1)
    server = begin(method, start(method, 1.0), 0, 2.0)
    assert method.payload(server, CLIENTS[0], phase) == {}
    assert method.payload(method.arrive(server, 0), CLIENTS[0], phase).keys() == {W}


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [(FedAsync, "alpha", 0.0), (FedAsync, "staleness", "linear"), (FedAsync, "slope", 0.0), (FedAsync, "delay", -1.0),
     (FedBuff, "buffer", 0), (FedBuff, "eta", 0.0), (FedBuff, "exponent", -1.0), (FedAsmu, "mu", 0.0),
     (FedAsmu, "sigma", -1.0)],
)  # fmt: skip
def test_options_are_checked(method: type[Asynchronous], option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{option}: expected"):
        method(**{option: value})
