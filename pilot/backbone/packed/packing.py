"""Positions of a batch's tokens without padding."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of tokens that are not to be predicted."""


MULTIPLE = 32
"""Row counts are rounded up to it: oneDNN compiles kernels for every new shape, which costs more than extra rows."""


@dataclass(frozen=True)
class Packing:
    """Positions of the tokens of B sequences without padding, T in total: the prefix, image tokens, text tokens.

    T and M are rounded up to `MULTIPLE`; rows after the last token, or the last query, belong to no sequence.

    Attributes:
        num_rows: B.
        length: L, that of the longest sequence.
        num_prefix: number of tokens with which all sequences begin; they are included once.
        num_tokens: how many of T belong to a sequence.
        text_T: ids of the text tokens.
        positions_T: position of each token in its sequence.
        gather_BL: token at each position (flat), 0 where there is none.
        scatter_T: position in (B * L) of each token; for the prefix, that in the first sequence.
        query_M: tokens that predict a label.
        num_predictions: how many of M do.
        num_queries: Q, the maximum per sequence.
        query_scatter_M: position in (B * Q) of each query.
        targets_M: labels that the queries are to predict; `IGNORED` for the rest.
    """

    num_rows: int
    length: int
    num_prefix: int
    num_tokens: int
    text_T: Tensor
    positions_T: Tensor
    gather_BL: Tensor
    scatter_T: Tensor
    query_M: Tensor
    num_predictions: int
    num_queries: int
    query_scatter_M: Tensor
    targets_M: Tensor


def pack(ids_BL: Tensor, labels_BL: Tensor, num_prefix: int, num_image: int) -> Packing:
    """Compute the positions of a batch's tokens; ids follow the image, with all padding after the last label."""
    num_rows, width = ids_BL.shape
    labelled_BL = labels_BL != IGNORED
    length_B = (labelled_BL * torch.arange(width)).amax(dim=1)  # the last label's own token is predicted, not read
    length = num_prefix + num_image + int(length_B.max())
    row, column = (torch.arange(width) < length_B[:, None]).nonzero(as_tuple=True)
    start_B = torch.arange(num_rows) * length
    image_BN = (start_B + num_prefix)[:, None] + torch.arange(num_image)
    text = start_B[row] + num_prefix + num_image + column
    scatter = torch.cat([torch.arange(num_prefix), image_BN.flatten(), text])
    gather_BL = torch.zeros(num_rows * length, dtype=torch.long)
    gather_BL[scatter] = torch.arange(len(scatter))
    gather_BL.view(num_rows, length)[:, :num_prefix] = torch.arange(num_prefix)
    row_M, column_M = labelled_BL.nonzero(as_tuple=True)
    query = gather_BL[start_B[row_M] + num_prefix + num_image + column_M - 1]
    nth = labelled_BL.cumsum(dim=1)[row_M, column_M] - 1
    num_queries = int(labelled_BL.sum(dim=1).max())
    filling = -len(scatter) % MULTIPLE
    scatter_T = functional.pad(scatter, (0, filling))
    return Packing(
        num_rows, length, num_prefix, len(scatter), functional.pad(ids_BL[row, column], (0, filling)),
        scatter_T % length, gather_BL, scatter_T, _rounded(query), len(query), num_queries,
        _rounded(row_M * num_queries + nth), _rounded(labels_BL[labelled_BL], IGNORED),
    )  # fmt: skip


def _rounded(values: Tensor, filling: int = 0) -> Tensor:
    return functional.pad(values, (0, -len(values) % MULTIPLE), value=filling)
