"""Auxiliary losses against values computed by hand."""

import math

import pytest
import torch

from pilot.connector.losses import difference_loss, load_balance_loss, router_z_loss


def test_difference_loss_by_hand() -> None:
    # x_t = [[1, 0], [0, 0]], x_s = [[3, 4], [0, 0]]: norms 1 and 5, so x_t^T x_s = [[0.6, 0.8], [0, 0]];
    # squared Frobenius norm 0.36 + 0.64 = 1. Second sample: x_s = [[0, 0], [3, 4]] shares no row: 0.
    # Mean 0.5.
    x_t = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]).repeat(2, 1, 1)
    x_s = torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 0.0], [3.0, 4.0]]])
    assert difference_loss(x_t, x_s).item() == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (2, 4, 16)])
def test_difference_loss_is_the_naive_matrix_norm(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x_t, x_s = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    naive = [((a / a.norm()).T @ (b / b.norm())).norm() ** 2 for a, b in zip(x_t, x_s, strict=True)]
    assert difference_loss(x_t, x_s).item() == pytest.approx(torch.stack(naive).mean().item(), rel=1e-12)


def test_difference_loss_does_not_depend_on_scale_and_its_gradient_treats_norms_as_constants() -> None:
    # One row each, x_t = (2, 0), x_s = (1, 1): normalised a = x_t / 2 = (1, 0), b = (1, 1) / sqrt 2.
    # L = |a|^2 |b|^2 = 1. With the norm n = 2 constant, dL/dx_t = 2 a |b|^2 / n = (1, 0).
    x_t = torch.tensor([[[2.0, 0.0]]], requires_grad=True)
    loss = difference_loss(x_t, torch.tensor([[[1.0, 1.0]]]))
    assert loss.item() == pytest.approx(1.0)
    loss.backward()
    assert x_t.grad is not None
    torch.testing.assert_close(x_t.grad, torch.tensor([[[1.0, 0.0]]]))


def test_difference_loss_of_zero_features_is_zero_with_finite_gradient() -> None:
    x_t = torch.zeros(1, 2, 2, requires_grad=True)
    loss = difference_loss(x_t, torch.ones(1, 2, 2))
    loss.backward()
    assert loss.item() == 0 and x_t.grad is not None and torch.isfinite(x_t.grad).all()


def test_difference_loss_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(B, N, C\)"):
        difference_loss(torch.ones(1, 2, 3), torch.ones(1, 1, 3))
    with pytest.raises(ValueError, match=r"\(B, N, C\)"):
        difference_loss(torch.ones(2, 3), torch.ones(2, 3))


def test_load_balance_loss_by_hand() -> None:
    # Top experts of the three tokens: 0, 0, 1: f = (2/3, 1/3); P = ((.8+.6+.1)/3, ...) = (.5, .5).
    # 2 * (2/3 * .5 + 1/3 * .5) = 1.
    probs = torch.tensor([[[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]])
    assert load_balance_loss(probs).item() == pytest.approx(1.0)
    # f = (1, 0), P = (.7, .3): 2 * .7 = 1.4. One expert takes all: T = 2.
    assert load_balance_loss(probs[:, :2]).item() == pytest.approx(1.4)
    assert load_balance_loss(torch.tensor([[[1.0, 0.0]]])).item() == pytest.approx(2.0)


def test_load_balance_loss_sees_the_whole_batch() -> None:
    # Sample 0 goes to expert 0, sample 1 to expert 1: balanced over the batch (1), not over the first sample
    # (1.8).
    probs = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]])
    assert load_balance_loss(probs).item() == pytest.approx(1.0)


def test_load_balance_loss_of_a_uniform_router_is_one_and_favours_nobody() -> None:
    logits = torch.zeros(2, 3, 4, requires_grad=True)
    loss = load_balance_loss(logits.softmax(dim=-1))
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert logits.grad is not None and logits.grad.abs().max() < 1e-8


def test_router_z_loss_by_hand() -> None:
    # logsumexp(0, 0) = ln 2; logsumexp(ln 3, 0) = ln 4. Mean of the squares.
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]]])
    assert router_z_loss(logits).item() == pytest.approx((math.log(2) ** 2 + math.log(4) ** 2) / 2)


def test_router_z_loss_of_large_bfloat16_logits_is_finite() -> None:
    assert router_z_loss(torch.full((1, 1, 2), 1e4, dtype=torch.bfloat16)).isfinite()
