"""The weighted sum of experts: by hand, its gradients against finite differences, and in autocast."""

import pytest
import torch

from pilot.connector.mixing import mix_experts


def test_by_hand() -> None:
    # One token of width 2: 0.25 [4, 8] + 0.75 [1, 2] + [10, 20] = [11.75, 23.5]. With g = [1, 2]: dh_i = P_i g, and
    # dP_i = <g, h_i> = 4 + 16 = 20 and 1 + 4 = 5.
    weights = torch.tensor([[[0.25, 0.75]]], requires_grad=True)
    experts = [torch.tensor([[[4.0, 8.0]]], requires_grad=True), torch.tensor([[[1.0, 2.0]]], requires_grad=True)]
    rest = torch.tensor([[[10.0, 20.0]]], requires_grad=True)
    mixed = mix_experts(weights, experts, rest)
    assert mixed.tolist() == [[[11.75, 23.5]]]
    mixed.backward(torch.tensor([[[1.0, 2.0]]]))
    assert [expert.grad.tolist() for expert in experts if expert.grad is not None] == [[[[0.25, 0.5]]], [[[0.75, 1.5]]]]
    assert weights.grad is not None and weights.grad.tolist() == [[[20.0, 5.0]]]
    assert rest.grad is not None and rest.grad.tolist() == [[[1.0, 2.0]]]
    assert mix_experts(weights, experts).tolist() == [[[1.75, 3.5]]]


@pytest.mark.parametrize("trained", [(True, True, True), (False, True, False), (True, False, True)])
@pytest.mark.parametrize("with_rest", [True, False])
def test_gradients_are_those_of_finite_differences(trained: tuple[bool, ...], with_rest: bool) -> None:
    generator = torch.Generator().manual_seed(1)

    def values(*shape: int, grad: bool = True) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(grad)

    experts = [values(2, 3, 4, grad=grad) for grad in trained]
    rest = values(2, 3, 4) if with_rest else None
    assert torch.autograd.gradcheck(lambda p, r, *h: mix_experts(p, h, r), (values(2, 3, 3), rest, *experts))


def test_frozen_parts_ask_for_no_gradient() -> None:
    weights, frozen = torch.ones(1, 1, 2, requires_grad=True), torch.ones(1, 1, 3)
    trained = torch.ones(1, 1, 3, requires_grad=True)
    mix_experts(weights, [frozen, trained], frozen).sum().backward()
    assert frozen.grad is None and weights.grad is not None and trained.grad is not None
    assert not mix_experts(weights.detach(), [frozen, frozen]).requires_grad


def test_weights_of_float32_meet_experts_of_bfloat16() -> None:
    weights = torch.full((1, 1, 2), 0.5, requires_grad=True)
    experts = [torch.full((1, 1, 4), value, dtype=torch.bfloat16) for value in (1.0, 0.0)]
    mixed = mix_experts(weights, experts)
    assert mixed.dtype == torch.bfloat16 and mixed.tolist() == [[[0.5] * 4]]
    mixed.sum().backward()
    assert weights.grad is not None and weights.grad.dtype == torch.float32 and weights.grad.tolist() == [[[4.0, 0.0]]]


def test_a_missing_expert_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 3 experts, got 2"):
        mix_experts(torch.ones(1, 1, 3), [torch.ones(1, 1, 2)] * 2)
