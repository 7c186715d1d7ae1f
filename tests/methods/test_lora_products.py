"""Pairs, products and factors of LoRA."""

import pytest
import torch

from pilot.methods.base import State
from pilot.methods.lora_products import (
    layers_of,
    lora_products,
    lora_rank,
    low_rank_factors,
    pad_rank,
    product_norm,
    stack_factors,
    truncate_rank,
)

A, B = "text_adapter.q.lora_A", "text_adapter.q.lora_B"


def random_states() -> list[State]:
    source = torch.Generator().manual_seed(3)
    shapes = [{A: (rank, 5), B: (6, rank)} for rank in (1, 2, 3)]
    return [{name: torch.randn(shape, generator=source) for name, shape in state.items()} for state in shapes]


def test_products_by_hand() -> None:
    # [[1], [2]] [[3, 4]] = [[3, 4], [6, 8]]
    state = {A: torch.tensor([[3.0, 4.0]]), B: torch.tensor([[1.0], [2.0]]), "connector.a": torch.ones(1)}
    result = lora_products(state)
    assert {name: value.tolist() for name, value in result.items()} == {"offset.q.weight": [[3.0, 4.0], [6.0, 8.0]]}
    assert result["offset.q.weight"].dtype == torch.float64
    # 9 + 16 + 36 + 64 = 125; with a second layer of product (10): sqrt(125 + 100) = 15.
    state |= {"text_adapter.v.lora_A": torch.tensor([[5.0]]), "text_adapter.v.lora_B": torch.tensor([[2.0]])}
    assert product_norm(state) == pytest.approx(15.0) and layers_of(state) == ("q", "v")


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"text_adapter\.q"):
        layers_of({B: torch.ones(1, 1)})
    with pytest.raises(ValueError, match="lora_A"):
        lora_rank({B: torch.ones(1, 1)})


def test_cut_and_pad_undo_each_other_on_zeros() -> None:
    state = random_states()[1] | {"connector.a": torch.ones(2)}
    wide = pad_rank(state, 4)
    assert wide[A].shape == (4, 5) and wide[B].shape == (6, 4) and lora_rank(wide) == 4
    assert not wide[A][2:].any() and not wide[B][:, 2:].any()
    back = truncate_rank(wide, 2)
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert back[B].is_contiguous() and back[B].untyped_storage().nbytes() == 6 * 2 * 4


def test_stacking_multiplies_to_the_mean_product() -> None:
    states = random_states()
    left_OR, right_RI = stack_factors(list(zip(states, (0.5, 0.25, 0.25), strict=True)), "q")
    expected = sum(p * (s[B].double() @ s[A].double()) for s, p in zip(states, (0.5, 0.25, 0.25), strict=True))
    assert left_OR.shape == (6, 6) and right_RI.shape == (6, 5)
    torch.testing.assert_close(left_OR @ right_RI, torch.as_tensor(expected))


@pytest.mark.parametrize("rank", [1, 2, 4, 9])
def test_factors_are_the_best_approximation(rank: int) -> None:
    left_OR, right_RI = stack_factors([(state, 1.0) for state in random_states()], "q")
    whole = left_OR @ right_RI  # (6, 5), of rank 5
    a_KI, b_OK = low_rank_factors(left_OR, right_RI, rank)
    assert a_KI.shape == (min(rank, 5), 5) and b_OK.shape == (6, min(rank, 5))
    # Eckart-Young: what is missed are the singular values beyond the rank, of the product built in full.
    values = torch.linalg.svdvals(whole)
    missed = (whole - b_OK @ a_KI).norm()
    torch.testing.assert_close(missed, values[rank:].norm(), atol=1e-12, rtol=1e-9)
    # Evenly split: columns of B and rows of A have the same norms, sqrt(s).
    torch.testing.assert_close(b_OK.norm(dim=0), values[:rank].sqrt())
    torch.testing.assert_close(a_KI.norm(dim=1), values[:rank].sqrt())
    assert (b_OK.gather(0, b_OK.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_signs_depend_on_the_product_alone() -> None:
    left_OR, right_RI = stack_factors([(state, 1.0) for state in random_states()], "q")
    here = low_rank_factors(left_OR, right_RI, 3)
    there = low_rank_factors(-left_OR, -right_RI, 3)
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(one, other)


def test_a_product_of_zero_has_no_factors() -> None:
    a_KI, b_OK = low_rank_factors(torch.zeros(6, 2), torch.ones(2, 5), 2)
    assert a_KI.shape == (0, 5) and b_OK.shape == (6, 0)
