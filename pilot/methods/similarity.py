"""Similarity of clients' updates: cosines, the best split of clients into two parts, and the best clusters."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

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


def mean_cosine_distances(states: Sequence[State]) -> NDArray[np.float64]:
    """Compute the mean over tensors of 1 - cos of the same tensor of two clients, (K, K); 1 where one of them is 0."""
    total_KK = torch.zeros(len(states), len(states), dtype=torch.float64)
    for name in states[0]:
        rows_KD = functional.normalize(torch.stack([state[name].flatten().double() for state in states]))
        total_KK += 1 - rows_KD @ rows_KD.T
    mean_KK = (total_KK / len(states[0])).clamp(min=0).fill_diagonal_(0)
    distances: NDArray[np.float64] = ((mean_KK + mean_KK.T) / 2).numpy()
    return distances


def best_clusters(distances_KK: NDArray[np.float64], tried: Sequence[int]) -> list[int]:
    """Return the cluster of each client, numbered by their first clients: average linkage, the largest silhouette.

    Args:
        distances_KK: between clients.
        tried: numbers of clusters, of which those below K are tried; fewer than three clients are one cluster.
    """
    if len(distances_KK) < 3:
        return [0] * len(distances_KK)
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import silhouette_score

    found = []
    for count in sorted({min(count, len(distances_KK) - 1) for count in tried}):
        model = AgglomerativeClustering(n_clusters=count, metric="precomputed", linkage="average")
        labels = model.fit_predict(distances_KK).tolist()
        found.append((silhouette_score(distances_KK, labels, metric="precomputed") if count > 1 else 0.0, labels))
    _, best = max(found, key=lambda each: each[0])
    order = list(dict.fromkeys(best))
    return [order.index(label) for label in best]
