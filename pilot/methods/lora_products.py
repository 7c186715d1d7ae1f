"""LoRA pairs by layer, their products B A, and best approximations of sums of products; arithmetic in float64.

A is (r, I), B is (O, r) for a layer of I inputs and O outputs. `truncate_rank` and `pad_rank` remove or add rows of A
and columns of B.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pilot.methods.state import State, belongs

A, B = "text_adapter:lora_A", "text_adapter:lora_B"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names of the linear layers that have LoRA."""
NEGLIGIBLE = 1e-7
"""Singular values below this fraction of the largest are rounding errors of float32 factors."""


def layers_of(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the sorted paths of the layers with a LoRA pair: sums over them do not depend on the state's order.

    Raises:
        ValueError: a pair is incomplete.
    """
    found = {part: [_layer(name) for name in state if belongs(name, {part})] for part in (A, B)}
    if set(found[A]) != set(found[B]):
        alone = sorted(set(found[A]) ^ set(found[B]))[0]
        raise ValueError(f"text_adapter.{alone}: expected both lora_A and lora_B")
    return tuple(sorted(found[A]))


def pair_of(state: Mapping[str, Tensor], layer: str) -> tuple[Tensor, Tensor]:
    """Return A (r, I) and B (O, r) of a layer, in float64."""
    return state[f"text_adapter.{layer}.lora_A"].double(), state[f"text_adapter.{layer}.lora_B"].double()


def lora_products(state: Mapping[str, Tensor]) -> State:
    """Compute B A (O, I) of every pair in float64, under the name of the layer's offset: `offset.<layer>.weight`."""
    result = {}
    for layer in layers_of(state):
        a_RI, b_OR = pair_of(state, layer)
        result[f"offset.{layer}.weight"] = b_OR @ a_RI
    return result


def product_norm(state: Mapping[str, Tensor]) -> float:
    """Compute sqrt(sum over layers of ||B A||_F^2) by ||B A||_F^2 = <B^T B, A A^T>, without an (O, I) matrix."""
    total = 0.0
    for layer in layers_of(state):
        a_RI, b_OR = pair_of(state, layer)
        total += float(((b_OR.T @ b_OR) * (a_RI @ a_RI.T)).sum())
    return max(total, 0.0) ** 0.5


def lora_rank(state: Mapping[str, Tensor]) -> int:
    """Return r, the number of rows of the first A.

    Raises:
        ValueError: there is no A.
    """
    rows = [value.shape[0] for name, value in state.items() if belongs(name, {A})]
    if not rows:
        raise ValueError("expected a tensor lora_A, from which the rank is read")
    return rows[0]


def truncate_rank(state: Mapping[str, Tensor], rank: int) -> State:
    """Keep the first `rank` rows of every A and columns of every B; leave other tensors unchanged."""
    return {
        name: value[:rank].clone() if belongs(name, {A})
        else value[:, :rank].clone() if belongs(name, {B})
        else value
        for name, value in state.items()
    }  # fmt: skip


def pad_rank(state: Mapping[str, Tensor], rank: int) -> State:
    """Add zeros below every A and to the right of every B, up to `rank`; leave other tensors unchanged."""
    return {
        name: functional.pad(value, (0, 0, 0, rank - value.shape[0])) if belongs(name, {A})
        else functional.pad(value, (0, rank - value.shape[1])) if belongs(name, {B})
        else value
        for name, value in state.items()
    }  # fmt: skip


def stack_factors(states: Sequence[tuple[Mapping[str, Tensor], float]], layer: str) -> tuple[Tensor, Tensor]:
    """Stack [p_k B_k] (O, R) and [A_k] (R, I) with R the sum of ranks: their product is sum_k p_k B_k A_k."""
    pairs = [(*pair_of(state, layer), weight) for state, weight in states]
    return torch.cat([weight * b_OR for _, b_OR, weight in pairs], dim=1), torch.cat([a_RI for a_RI, _, _ in pairs])


def low_rank_factors(left_OR: Tensor, right_RI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factorise the best approximation of left right of rank k <= `rank` into A (k, I) and B (O, k), in float64.

    With U S V^T the product's SVD, B = U sqrt(S) and A = sqrt(S) V^T. Negligible singular values are dropped, so that k
    may be smaller than `rank`. The entry of largest magnitude in every column of B is positive.
    """
    u_OK, s_K, v_KI = product_svd(left_OR, right_RI)
    root_K = s_K[:rank].sqrt()
    return root_K[:, None] * v_KI[:rank], u_OK[:, :rank] * root_K


def product_svd(left_OR: Tensor, right_RI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute U (O, K), S (K,) and V^T (K, I) with left right = U S V^T, in float64, without negligible values.

    With left = Q_1 R_1 and right^T = Q_2 R_2 (thin QR), only R_1 R_2^T is decomposed: the (O, I) product is never
    built. The entry of largest magnitude in every column of U is positive.
    """
    outer_OM, inner_MR = torch.linalg.qr(left_OR.double())
    outer_IN, inner_NR = torch.linalg.qr(right_RI.double().T)
    u_MK, s_K, v_KN = torch.linalg.svd(inner_MR @ inner_NR.T, full_matrices=False)
    keep = int((s_K > NEGLIGIBLE * s_K[0]).sum())
    u_OK, v_KI = outer_OM @ u_MK[:, :keep], v_KN[:keep] @ outer_IN.T
    sign_K = u_OK.gather(0, u_OK.abs().argmax(dim=0, keepdim=True))[0].sign()
    return u_OK * sign_K, s_K[:keep], sign_K[:, None] * v_KI


def complete_pair(layer: str, a_KI: Tensor, b_OK: Tensor, start_RI: Tensor) -> State:
    """Extend factors of rank K to a layer's pair of rank R >= K, in the dtype of the initial A (`start_RI`).

    Rows K..R of A are the initial ones and their columns of B zero: with zeros in both they could never be learned.
    """
    missing = len(start_RI) - len(a_KI)
    return {
        f"text_adapter.{layer}.lora_A": torch.cat([a_KI.to(start_RI.dtype), start_RI[len(a_KI) :]]),
        f"text_adapter.{layer}.lora_B": functional.pad(b_OK, (0, missing)).to(start_RI.dtype),
    }


def reset_dead_rows(state: Mapping[str, Tensor], start: Mapping[str, Tensor], rank: int) -> State:
    """Reset those of the first `rank` rows of A to `start` whose factors are both zero and could never be learned."""
    result = dict(state)
    for layer in layers_of(state):
        name = f"text_adapter.{layer}.lora_A"
        dead_R = ~(state[name].any(dim=1) | state[f"text_adapter.{layer}.lora_B"].any(dim=0))
        dead_R[rank:] = False
        result[name] = torch.where(dead_R[:, None], start[name], state[name])
    return result


def _layer(name: str) -> str:
    return name.removeprefix("text_adapter.").rpartition(".")[0]
