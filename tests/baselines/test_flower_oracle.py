"""Flower's own strategies as an independent oracle, on random updates over several rounds.

The strategies of `flwr.serverapp` aggregate the content of messages. A `Message` can be made inside a Flower process
only; what aggregation reads of one is `content` and whether there is an error, so a stand-in with these will do.

Where Flower's rule is not the paper's, which is ours, the test says how the two are brought to agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

from baselines.fedadagrad import FedAdagrad
from baselines.fedadam import FedAdam
from baselines.fedavg import FedAvg
from baselines.fedavgm import FedAvgM
from baselines.fedprox import FedProx
from baselines.fedyogi import FedYogi
from pilot.methods.averaging import Averaging
from pilot.methods.base import ClientInfo, Mean, State, Update, weighted_mean
from pilot.methods.robust import coordinate_median, multi_krum, trimmed_mean

SEEDS = range(5)
ROUNDS = 4
SHAPES = {"connector.linear.weight": (3, 4), "text_adapter.q.lora_A": (2, 5), "text_adapter.q.lora_B": (1,)}


@dataclass(frozen=True)
class Reply:
    """What aggregation reads of a message."""

    content: RecordDict

    def has_error(self) -> bool:
        """Never."""
        return False


class NoNodes:
    """A grid of nobody: `configure_train` only has to learn the current arrays."""

    def get_node_ids(self) -> list[int]:
        """None."""
        return []


def record(state: State) -> ArrayRecord:
    return ArrayRecord({name: Array(value.numpy().copy()) for name, value in state.items()})


def replies(updates: Sequence[Update]) -> list[Message]:
    made = []
    for update in updates:
        metrics = MetricRecord({"num-examples": update.num_examples})
        made.append(Reply(RecordDict({"arrays": record(update.state), "metrics": metrics})))
    return made  # type: ignore[return-value]


def flower_state(arrays: ArrayRecord | None) -> State:
    assert arrays is not None
    return {name: torch.from_numpy(array.numpy().astype(np.float32)) for name, array in arrays.items()}


def random_state(generator: np.random.Generator, scale: float) -> State:
    return {
        name: torch.from_numpy((scale * generator.standard_normal(shape)).astype(np.float32))
        for name, shape in SHAPES.items()
    }


def random_updates(generator: np.random.Generator, around: State, count: int = 6) -> list[Update]:
    """Clients that moved by about 0.01 per coordinate."""
    result = []
    for client in range(count):
        move = random_state(generator, 0.01)
        state = {name: value + move[name] for name, value in around.items()}
        result.append(Update(client, "vqa", int(generator.integers(1, 500)), state))
    return result


def assert_close(ours: State, theirs: State, relative: float = 2e-5, absolute: float = 1e-7) -> None:
    assert ours.keys() == theirs.keys() == SHAPES.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=relative, atol=absolute)


def compare(
    seed: int, method_of: Callable[[int], Averaging], strategy: flower.FedAvg, mean: Mean = weighted_mean
) -> None:
    """Both take part in the same rounds: our server's model, which `method_of` each round makes, against Flower's."""
    generator = np.random.default_rng(seed)
    theta = random_state(generator, 1.0)
    info = ClientInfo(client=0, task="vqa", tasks=("vqa",), seed=0)
    server, theirs = method_of(1).initial_server_state(theta, (info,)), theta
    for number in range(1, ROUNDS + 1):
        method = method_of(number)
        (phase,) = method.phases(number)
        strategy.configure_train(number, record(theirs), ConfigRecord(), NoNodes())  # type: ignore[arg-type]
        updates = random_updates(generator, method.payload(server, info, phase) or theta)
        server = method.aggregate(phase, iter(updates), server, mean)
        theirs = flower_state(strategy.aggregate_train(number, replies(updates))[0])
        assert_close(method.payload(server, info, phase), theirs)


def silent(strategy: flower.FedAvg) -> flower.FedAvg:
    """With no node to sample, `configure_train` would wait for one."""
    strategy.fraction_train = 0.0
    return strategy


@pytest.mark.parametrize("seed", SEEDS)
def test_fedavg(seed: int) -> None:
    compare(seed, lambda _: FedAvg(), silent(flower.FedAvg()))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_server_of_fedprox(seed: int) -> None:
    # Flower leaves the proximal term to the client's code; its server is FedAvg's.
    compare(seed, lambda _: FedProx(mu=0.1), silent(flower.FedProx(proximal_mu=0.1)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_fedavgm(seed: int, beta: float) -> None:
    # The same rule, written in Flower with theta_g - theta_k and a minus.
    compare(seed, lambda _: FedAvgM(beta=beta), silent(flower.FedAvgM(server_learning_rate=1.0, server_momentum=beta)))


def from_tau_squared(strategy: flower.FedAdam | flower.FedYogi | flower.FedAdagrad, tau: float) -> flower.FedAvg:
    """v from tau^2, where Flower starts at 0 and the paper asks for at least tau^2."""
    strategy.v_t = {name: np.full(shape, tau**2, dtype=np.float32) for name, shape in SHAPES.items()}
    return silent(strategy)


@pytest.mark.parametrize("seed", SEEDS)
def test_fedadam_up_to_flowers_bias_correction(seed: int) -> None:
    # Flower multiplies eta by sqrt(1 - beta2^(t + 1)) / (1 - beta1^(t + 1)) in round t = 1, 2, ...: Adam's bias
    # correction, one round ahead. The paper has none. So our step with that eta is Flower's step.
    def method(number: int) -> FedAdam:
        factor = (1 - 0.99 ** (number + 1)) ** 0.5 / (1 - 0.9 ** (number + 1))
        return FedAdam(eta=0.02 * factor, beta1=0.9, beta2=0.99, tau=0.003)

    compare(seed, method, from_tau_squared(flower.FedAdam(eta=0.02, beta_1=0.9, beta_2=0.99, tau=0.003), 0.003))


def test_fedadam_is_not_flowers_without_that_factor() -> None:
    with pytest.raises(AssertionError, match="not close"):
        compare(0, lambda _: FedAdam(eta=0.02, tau=0.003), from_tau_squared(flower.FedAdam(eta=0.02, tau=0.003), 0.003))


@pytest.mark.parametrize("seed", SEEDS)
def test_fedyogi(seed: int) -> None:
    # No bias correction in either.
    strategy = flower.FedYogi(eta=0.02, beta_1=0.9, beta_2=0.9, tau=0.003)
    compare(seed, lambda _: FedYogi(eta=0.02, beta1=0.9, beta2=0.9, tau=0.003), from_tau_squared(strategy, 0.003))


@pytest.mark.parametrize("seed", SEEDS)
def test_fedadagrad(seed: int) -> None:
    # Flower fixes beta1 = 0, our default.
    compare(
        seed, lambda _: FedAdagrad(eta=0.02, tau=0.003), from_tau_squared(flower.FedAdagrad(eta=0.02, tau=0.003), 0.003)
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_median(seed: int) -> None:
    compare(seed, lambda _: FedAvg(), silent(flower.FedMedian()), coordinate_median)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("trim", [0.0, 0.1, 0.2, 0.34, 0.49])
def test_trimmed_mean(seed: int, trim: float) -> None:
    # Both cut floor(trim K); of 6 states that is 0, 0, 1, 2, 2.
    compare(
        seed, lambda _: FedAvg(), silent(flower.FedTrimmedAvg(beta=trim)), lambda states: trimmed_mean(states, trim)
    )


def test_trimmed_mean_reads_the_share_as_a_decimal_and_flower_in_binary() -> None:
    # 0.29 * 100 is 28.999999999999996 in binary: Flower cuts 28 of 100, we cut 29, as Flower does for 0.295.
    generator = np.random.default_rng(0)
    updates = random_updates(generator, random_state(generator, 1.0), count=100)
    ours = trimmed_mean(((update.state, 1.0) for update in updates), 0.29)
    theirs = {
        beta: flower_state(flower.FedTrimmedAvg(beta=beta).aggregate_train(1, replies(updates))[0])
        for beta in (0.29, 0.295)
    }
    assert_close(ours, theirs[0.295])
    with pytest.raises(AssertionError, match="not close"):
        assert_close(ours, theirs[0.29])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("num_byzantine", "num_selected"), [(0, 1), (1, 1), (1, 3), (1, 5), (2, 4)])
def test_multi_krum(seed: int, num_byzantine: int, num_selected: int) -> None:
    # Flower takes the K - f - 2 nearest after the nearest one, which it assumes to be the state itself, and distances
    # from ||x||^2 + ||y||^2 - 2 <x, y>, which cancel: states near the origin keep both harmless. Both average the
    # selected by numbers of examples. Flower has no lower bound on K; ours is 2 f + 3.
    generator = np.random.default_rng(seed)
    updates = random_updates(generator, {name: torch.zeros(shape) for name, shape in SHAPES.items()}, count=8)
    for update in updates[:num_byzantine]:
        for value in update.state.values():
            value.mul_(30)
    strategy = flower.MultiKrum(num_malicious_nodes=num_byzantine, num_nodes_to_select=num_selected)
    chosen = multi_krum([update.state for update in updates], num_byzantine, num_selected)
    assert len(chosen) == num_selected and not set(chosen) & set(range(num_byzantine))
    ours = weighted_mean((updates[k].state, updates[k].num_examples) for k in chosen)
    assert_close(ours, flower_state(strategy.aggregate_train(1, replies(updates))[0]))
