"""Similarity of clients' updates: cosines, and the best split of clients into two parts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pilot.methods.state import State


def flat_update(state: State, reference: State) -> Tensor:
    """Flatten state - reference to (D,) in float64, tensors sorted by name.

    Raises:
        KeyError: the reference lacks a name.
    """
    return torch.cat([(state[name].double() - reference[name].double()).flatten() for name in sorted(state)])


def cosine_similarities(updates: Sequence[Tensor]) -> list[list[float]]:
    """Compute (K, K) cosines between K vectors of equal length; 0 where one of the two is 0."""
    updates_KD = torch.stack(list(updates))
    norms_K1 = updates_KD.norm(dim=1, keepdim=True)
    unit_KD = updates_KD / torch.where(norms_K1 > 0, norms_K1, 1.0)
    cosines: list[list[float]] = (unit_KD @ unit_KD.T).clamp(-1, 1).tolist()
    return cosines


def bipartition(similarities: Sequence[Sequence[float]]) -> tuple[list[int], list[int], float]:
    """Split 0..K-1 into the two parts with the smallest maximum similarity across; return them and that similarity.

    Exact, in K^2 log K (Sattler et al., IEEE TNNLS 2021, Algorithm 1): clients that are more similar than that must be
    in the same part, so the most similar pairs are merged until two parts remain. Ties by position. The first part
    contains 0.

    Args:
        similarities: (K, K), symmetric, K at least 2.
    """
    count = len(similarities)
    part = list(range(count))
    pairs = sorted((-similarities[i][j], i, j) for i in range(count) for j in range(i + 1, count))
    for negative, i, j in pairs:
        if part[i] == part[j]:
            continue
        if len(set(part)) == 2:
            first = [k for k in range(count) if part[k] == part[0]]
            return first, [k for k in range(count) if k not in first], -negative
        joined, kept = max(part[i], part[j]), min(part[i], part[j])
        part = [kept if label == joined else label for label in part]
    raise ValueError(f"similarities: expected at least 2 rows, got {count}")
