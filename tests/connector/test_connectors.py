"""Connectors: their start, their equations against slow loops, and which groups receive gradients."""

from typing import Literal, TypeVar

import pytest
import torch
from torch import Tensor

from pilot.connector.base import Connector, PlainConnector, set_trainable
from pilot.connector.ct_moa import CrossTaskMixture
from pilot.connector.mixture import ExpertMixture
from pilot.connector.projector import Projector
from pilot.connector.two_stage import TaskClientConnector, initial_adapters

B, N, D, C, T = 2, 3, 4, 6, 3
M = TypeVar("M", bound=torch.nn.Module)


@pytest.fixture
def projector() -> Projector:
    return randomised(Projector(D, C), seed=1)


@pytest.fixture
def features() -> Tensor:
    return torch.randn(B, N, D, generator=torch.Generator().manual_seed(2))


def randomised(module: M, seed: int) -> M:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def groups_with_gradient(connector: Connector, features: Tensor) -> set[str]:
    output = connector(features)
    (output.tokens_BNC.square().sum() + sum(output.terms.values())).backward()
    return {name.split(".")[0] for name, p in connector.named_parameters() if p.grad is not None and p.grad.any()}


def test_mlp_by_hand() -> None:
    # gelu(1) = Phi(1) = 0.8413447; W_2 = 2, b_2 = 1: 2.6826895. (The tanh approximation would give
    # 0.8411920.)
    mlp = Projector(1, 1)
    mlp.load_state_dict(
        {
            "linear_1.weight": torch.tensor([[1.0]]),
            "linear_1.bias": torch.tensor([0.0]),
            "linear_2.weight": torch.tensor([[2.0]]),
            "linear_2.bias": torch.tensor([1.0]),
        }
    )
    assert mlp(torch.tensor([[[1.0]]])).item() == pytest.approx(2.6826895, abs=1e-6)


def test_a_duplicate_shares_no_memory_and_draws_from_no_global_generator(projector: Projector) -> None:
    state = torch.get_rng_state()
    CrossTaskMixture(projector, T, 0), ExpertMixture(projector, 3, top_k=1, seed=0, noise=0.1)
    copy = projector.requires_grad_(False).duplicate()
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        copy.linear_1.weight += 1
    assert copy.linear_1.weight.requires_grad and not torch.equal(copy.linear_1.weight, projector.linear_1.weight)


def test_plain_connector_is_the_projector(projector: Projector, features: Tensor) -> None:
    connector = PlainConnector(projector)
    assert torch.equal(connector(features).tokens_BNC, projector(features))
    assert set(connector.state_dict()) == {f"connector.{name}" for name in projector.state_dict()}


def test_split_adapters_sum_to_the_projector_and_differ(projector: Projector, features: Tensor) -> None:
    task, client = initial_adapters(projector, "split")
    assert torch.equal(task.linear_2.weight + client.linear_2.weight, projector.linear_2.weight)
    assert torch.equal(task.linear_2.bias + client.linear_2.bias, projector.linear_2.bias)
    assert not task.linear_2.weight[:, 1::2].any() and not client.linear_2.weight[:, 0::2].any()
    output = TaskClientConnector(projector, "split")(features)
    torch.testing.assert_close(output.tokens_BNC, projector(features), atol=1e-6, rtol=1e-6)
    assert 0 < output.terms["difference"] < 1


def test_copied_adapters_double_the_projector(projector: Projector, features: Tensor) -> None:
    output = TaskClientConnector(projector, "copy")(features)
    torch.testing.assert_close(output.tokens_BNC, 2 * projector(features))


def test_unknown_options_are_refused(projector: Projector) -> None:
    with pytest.raises(ValueError, match="adapter_init"):
        TaskClientConnector(projector, "half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="client_features"):
        CrossTaskMixture(projector, T, 0, client_features="keep")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="own_task"):
        CrossTaskMixture(projector, T, T)
    with pytest.raises(ValueError, match="experts"):
        CrossTaskMixture(projector, T, 0, experts="no_task")  # type: ignore[arg-type]


@pytest.mark.parametrize("own", range(T))
@pytest.mark.parametrize("client_features", ["add", "omit"])
@pytest.mark.parametrize("cross_task", [True, False])
def test_cross_task_mixture_is_the_loop_over_samples_tokens_and_experts(
    projector: Projector, features: Tensor, own: int, client_features: Literal["add", "omit"], cross_task: bool
) -> None:
    mixture = CrossTaskMixture(projector, T, own, client_features=client_features, cross_task_adapters=cross_task)
    randomised(mixture, seed=3)
    output = mixture(features)
    mean_probs = torch.zeros(T)
    for b in range(B):
        for n in range(N):
            h = features[b, n]
            probs = (mixture.router.weight @ h).softmax(dim=0)
            mean_probs += probs / (B * N)
            expected = torch.zeros(C)
            for i in range(T):
                if i == own:
                    expert = mixture.task_adapter(h)
                else:
                    expert = mixture.peer_task_adapter[str(i)](h)
                    if cross_task:
                        expert = expert + mixture.cross_task_adapter[str(i)](h)
                expected = expected + probs[i] * expert
            if client_features == "add":
                assert mixture.client_adapter is not None
                expected = expected + mixture.client_adapter(h)
            torch.testing.assert_close(output.tokens_BNC[b, n], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.diagnostics["router_probabilities"], mean_probs)


def test_experts_of_the_own_task_are_its_adapter_plus_their_own(projector: Projector, features: Tensor) -> None:
    mixture = CrossTaskMixture(projector, T, 1, experts="own_task")
    torch.testing.assert_close(mixture(features).tokens_BNC, projector(features), atol=1e-5, rtol=1e-5)
    randomised(mixture, seed=3)
    assert {name.split(".")[0] for name in mixture.state_dict()} == {
        "task_adapter", "cross_task_adapter", "client_adapter", "router"
    }  # fmt: skip
    # The weights sum to 1, so the own adapter counts once whatever the router says.
    probs_BNT = mixture.router(features).softmax(dim=-1)
    assert mixture.client_adapter is not None
    expected = mixture.task_adapter(features) + mixture.client_adapter(features)
    for other in (0, 2):
        expected = expected + probs_BNT[..., other, None] * mixture.cross_task_adapter[str(other)](features)
    torch.testing.assert_close(mixture(features).tokens_BNC, expected, atol=1e-5, rtol=1e-5)


def test_experts_of_the_own_task_do_not_stay_equal(projector: Projector, features: Tensor) -> None:
    """Fresh ones are equal; their first gradients differ by the router's small random start, which the seed fixes."""
    mixture = CrossTaskMixture(projector, T, 1, experts="own_task", seed=7)
    assert torch.equal(
        mixture.router.weight, CrossTaskMixture(projector, T, 2, experts="own_task", seed=7).router.weight
    )
    assert not torch.equal(mixture.router.weight, CrossTaskMixture(projector, T, 1, experts="own_task").router.weight)
    assert not CrossTaskMixture(projector, T, 1, seed=7).router.weight.any()
    mixture(features).tokens_BNC.square().sum().backward()
    first, other = (mixture.cross_task_adapter[peer].linear_2.weight.grad for peer in ("0", "2"))
    assert not torch.allclose(first, other, rtol=1e-4)


@pytest.mark.parametrize("stage1", [True, False])
def test_stage_two_starts_at_the_projector_with_a_uniform_router(
    projector: Projector, features: Tensor, stage1: bool
) -> None:
    output = CrossTaskMixture(projector, T, 1, stage1=stage1)(features)
    torch.testing.assert_close(output.tokens_BNC, projector(features), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.diagnostics["router_probabilities"], torch.full((T,), 1 / T))
    assert output.terms["load_balance"].item() == pytest.approx(1.0)


def test_stage_two_takes_over_the_adapters_of_stage_one_by_name(projector: Projector) -> None:
    stage1, stage2 = TaskClientConnector(projector), CrossTaskMixture(projector, T, 1)
    assert set(stage1.state_dict()) <= set(stage2.state_dict())
    groups = {name.split(".")[0] for name in stage2.state_dict()}
    assert groups == {"task_adapter", "client_adapter", "peer_task_adapter", "cross_task_adapter", "router"}
    assert {name.split(".")[1] for name in stage2.state_dict() if name.startswith("peer")} == {"0", "2"}
    assert "client_adapter" not in {
        name.split(".")[0] for name in CrossTaskMixture(projector, T, 1, stage1=False).state_dict()
    }


def test_gradients_reach_exactly_the_trainable_groups(projector: Projector, features: Tensor) -> None:
    stage1 = {"task_adapter", "client_adapter"}
    stage2 = {"task_adapter", "cross_task_adapter", "router"}
    for connector, groups in (
        (randomised(TaskClientConnector(projector), 4), stage1),
        (randomised(CrossTaskMixture(projector, T, 1), 4), stage2),
        (PlainConnector(projector), {"connector"}),
        (ExpertMixture(projector, 3, top_k=2, seed=0, noise=0.1), {"experts", "router"}),
    ):
        set_trainable(connector, groups | {"text_adapter"})
        assert groups_with_gradient(connector, features) == groups


def test_every_trainable_tensor_of_a_fresh_stage_two_receives_a_gradient(
    projector: Projector, features: Tensor
) -> None:
    connector = CrossTaskMixture(projector, T, 1)
    set_trainable(connector, {"task_adapter", "cross_task_adapter", "router"})
    output = connector(features)
    (output.tokens_BNC.sum() + sum(output.terms.values())).backward()
    assert all((p.grad is not None) == p.requires_grad for p in connector.parameters())


def test_expert_mixture_is_the_loop_over_samples_tokens_and_experts(projector: Projector, features: Tensor) -> None:
    held = [True, False, True, True]
    mixture = randomised(ExpertMixture(projector, 4, top_k=2, seed=0, noise=0.1, held=held), seed=5)
    output = mixture(features)
    activations = torch.zeros(4)
    for b in range(B):
        for n in range(N):
            h = features[b, n]
            probs = torch.cat([mixture.router[str(i)](h) for i in (0, 2, 3)]).softmax(dim=0).tolist()
            ranked = sorted(zip(probs, (0, 2, 3), strict=True), reverse=True)[:2]
            expected = torch.zeros(C)
            for prob, i in ranked:
                expected = expected + prob / sum(p for p, _ in ranked) * mixture.experts[str(i)](h)
                activations[i] += 1 / (2 * B * N)
            torch.testing.assert_close(output.tokens_BNC[b, n], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.diagnostics["activation_probabilities"], activations)


def test_experts_start_near_the_projector_equal_on_all_clients_whatever_they_hold(projector: Projector) -> None:
    everything = ExpertMixture(projector, 3, top_k=2, seed=7, noise=0.01).state_dict()
    part = ExpertMixture(projector, 3, top_k=2, seed=7, noise=0.01, held=[False, True, False])
    assert set(part.state_dict()) == {name for name in everything if name.split(".")[1] == "1"}
    assert all(torch.equal(value, everything[name]) for name, value in part.state_dict().items())
    assert part.top_k == 1
    difference = everything["experts.0.linear_1.weight"] - projector.linear_1.weight
    assert 0 < difference.abs().max() < 0.05 * projector.linear_1.weight.std() * 2
    assert not torch.equal(everything["experts.0.linear_1.weight"], everything["experts.1.linear_1.weight"])


def test_activated_parameters_of_a_sparse_mixture_count_k_experts(projector: Projector) -> None:
    # One expert: D*C + C + C*C + C = 24 + 6 + 36 + 6 = 72; router: 3 rows of D = 12. Two experts: 12 + 144.
    mixture = ExpertMixture(projector, 3, top_k=2, seed=0, noise=0.1)
    assert mixture.num_activated_parameters() == 156
    assert PlainConnector(projector).num_activated_parameters() == 72


def test_an_expert_mixture_without_experts_is_refused(projector: Projector) -> None:
    with pytest.raises(ValueError, match="held"):
        ExpertMixture(projector, 2, top_k=1, seed=0, noise=0.1, held=[False, False])
    with pytest.raises(ValueError, match="top_k"):
        ExpertMixture(projector, 2, top_k=3, seed=0, noise=0.1)
