"""Causal attention over packed tokens: sequences and heads are gathered by index, inside one autograd function."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pilot.backbone.packed.packing import Packing


@dataclass(frozen=True)
class AttentionIndices:
    """Indices that turn packed queries, keys and values into sequences of heads, and back.

    With B sequences of at most L tokens, H heads of width D, KV heads of keys and values, and M queries in total, at
    most Q per sequence.

    Attributes:
        num_rows: B.
        num_queries: rows of the packed queries that belong to a sequence; the other rows have no influence.
        num_tokens: rows of the packed keys and values that belong to a sequence; the other rows have no influence.
        num_heads: H.
        num_groups: H / KV.
        length: L.
        num_prefix: leading positions of keys and values, which all sequences share.
        gather_q: row of (M * H, D) at each position of (B, H, Q).
        scatter_q: position in (B * H * Q) of each row of (M * H).
        gather_kv: row of (T * 2 KV, D) at each position of (2, B, H, L).
        scatter_kv: position in (2 * B * KV * L) of each row of (T * 2 KV).
        rotation_q: complex numbers that rotate queries (B, H, Q, D / 2).
        rotation_k: complex numbers that rotate keys.
        mask: added to the scores (B * H, Q, L): 0, or -inf for positions that a query may not attend to.
    """

    num_rows: int
    num_queries: int
    num_tokens: int
    num_heads: int
    num_groups: int
    length: int
    num_prefix: int
    gather_q: Tensor
    scatter_q: Tensor
    gather_kv: Tensor
    scatter_kv: Tensor
    rotation_q: Tensor
    rotation_k: Tensor
    mask: Tensor


def make_attention_indices(
    packing: Packing, num_heads: int, num_kv_heads: int, rotations_LE: Tensor
) -> tuple[AttentionIndices, AttentionIndices]:
    """Return the indices for queries at all tokens, and for the packing's queries only.

    `rotations_LE` is complex, E = D / 2.
    """
    p, rows, length, groups = packing, packing.num_rows, packing.length, num_heads // num_kv_heads
    head_H, part = torch.arange(num_heads), torch.arange(2)
    row_of_kv = p.gather_BL.view(1, rows, 1, length) * (2 * num_kv_heads) + part.view(2, 1, 1, 1) * num_kv_heads
    gather_kv = row_of_kv + (head_H // groups).view(1, 1, -1, 1)
    scatter_kv = _scatter_positions(p.scatter_T, num_kv_heads, length)[:, None]
    scatter_kv = scatter_kv + part[None, :, None] * (rows * num_kv_heads * length)
    shared = (p.num_tokens, num_heads, groups, length, p.num_prefix)
    keys = (gather_kv.flatten(), scatter_kv.flatten())
    causal_LL = torch.full((length, length), -math.inf).triu(1)
    gather_q = p.gather_BL.view(rows, 1, length) * num_heads + head_H.view(1, -1, 1)
    scatter_q = _scatter_positions(p.scatter_T, num_heads, length)
    every = AttentionIndices(
        rows,
        p.num_tokens,
        *shared,
        gather_q.flatten(),
        scatter_q.flatten(),
        *keys,
        rotations_LE,
        rotations_LE,
        causal_LL,
    )

    query_BQ, place_BQ = (torch.zeros(rows * p.num_queries, dtype=torch.long) for _ in range(2))
    real = p.query_scatter_M[: p.num_predictions]
    query_BQ[real] = torch.arange(len(real))
    place_BQ[real] = p.positions_T[p.query_M[: len(real)]]
    gather_q = query_BQ.view(rows, 1, -1) * num_heads + head_H.view(1, -1, 1)
    scatter_q = _scatter_positions(p.query_scatter_M, num_heads, p.num_queries)
    rotation_q = rotations_LE[place_BQ].view(rows, 1, p.num_queries, -1)
    mask = causal_LL[place_BQ].view(rows, 1, p.num_queries, length).expand(-1, num_heads, -1, -1).flatten(0, 1)
    of_queries = (rows, p.num_predictions, *shared, gather_q.flatten(), scatter_q.flatten())
    return every, AttentionIndices(*of_queries, *keys, rotation_q, rotations_LE, mask)


def attend(
    q_ME: Tensor, kv_TE: Tensor, heads: AttentionIndices
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Compute attention; return its output, and rotated q (B * H, Q, D), rotated k and v (B * H, L, D), and weights."""
    width = q_ME.shape[1] // heads.num_heads
    by_head, flat = (heads.num_rows, heads.num_heads, -1, width), (heads.num_rows * heads.num_heads, -1, width)
    q = q_ME.reshape(-1, width).index_select(0, heads.gather_q)
    k, v = kv_TE.reshape(-1, width).index_select(0, heads.gather_kv).view(2, *flat)
    rotate(q.view(by_head), heads.rotation_q)
    rotate(k.view(by_head), heads.rotation_k)
    q = q.view(flat)
    weights = torch.baddbmm(heads.mask, q, k.transpose(1, 2), alpha=width**-0.5).softmax(dim=-1)
    mixed = torch.bmm(weights, v).view(-1, width).index_select(0, heads.scatter_q).view(q_ME.shape)
    return mixed, (q, k, v, weights)


class Attention(torch.autograd.Function):
    """Rotary position embedding and softmax(q k^T / sqrt(D) + mask) v, from (M, H D) and (T, 2 KV D) to (M, H D)."""

    @staticmethod
    def forward(ctx: Any, q_ME: Tensor, kv_TE: Tensor, heads: AttentionIndices) -> Tensor:
        mixed_ME, kept = attend(q_ME, kv_TE, heads)
        ctx.save_for_backward(*kept)
        ctx.heads = heads
        return mixed_ME

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (q, k, v, weights), heads = ctx.saved_tensors, ctx.heads
        width, by_head = q.shape[-1], (heads.num_rows, heads.num_heads, -1, q.shape[-1])
        grad = torch.zeros_like(q)
        real = heads.num_queries * heads.num_heads
        grad.view(-1, width).index_copy_(0, heads.scatter_q[:real], grads[0].reshape(-1, width)[:real])
        grad_kv = torch.empty((2, *k.shape), dtype=k.dtype)
        torch.bmm(weights.transpose(1, 2), grad, out=grad_kv[1])
        scores = torch.bmm(grad, v.transpose(1, 2))
        scores = torch._softmax_backward_data(scores, weights, -1, scores.dtype).mul_(width**-0.5)
        grad_q = torch.bmm(scores, k)
        torch.bmm(scores.transpose(1, 2), q, out=grad_kv[0])
        rotate(grad_q.view(by_head), heads.rotation_q.conj())
        rotate(grad_kv[0].view(by_head), heads.rotation_k.conj())
        back_q = grad_q.view(-1, width).index_select(0, heads.scatter_q).view(grads[0].shape)
        back_q[heads.num_queries :] = 0
        return back_q, _pack_gradient(grad_kv.view(2, heads.num_rows, heads.num_heads, -1, width), heads), None


def _pack_gradient(grad: Tensor, heads: AttentionIndices) -> Tensor:
    """Map the gradient (2, B, H, L, D) of spread keys and values to that of the packed ones, (T, 2 KV D)."""
    if heads.num_groups > 1:
        grad = grad.unflatten(2, (-1, heads.num_groups)).sum(dim=3)
    num_kv_heads, width = grad.shape[2], grad.shape[-1]
    packed = grad.view(-1, width).index_select(0, heads.scatter_kv).view(-1, 2, num_kv_heads, width)
    packed[heads.num_tokens :] = 0
    packed[: heads.num_prefix] = grad[:, :, :, : heads.num_prefix].sum(dim=1).permute(2, 0, 1, 3)
    return packed.flatten(1)


def _scatter_positions(scatter_M: Tensor, num_heads: int, length: int) -> Tensor:
    """Return the positions (M, H) in (B * H * L) of the tokens at `scatter_M` in (B * L)."""
    row_M, place_M = scatter_M // length, scatter_M % length
    return (row_M[:, None] * num_heads + torch.arange(num_heads)) * length + place_M[:, None]


def rotate(x: Tensor, rotations: Tensor) -> None:
    """Apply rotary position embedding in place (Su et al. 2021, arXiv 2104.09864) to pairs of numbers as complex ones.

    Transformers pairs the halves of a head instead; `pilot.backbone.packed.weights` orders the rows of Q and K so that
    pairs are adjacent, which changes no product of a query and a key.
    """
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(rotations)
