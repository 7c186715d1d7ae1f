"""The server's means by their formulas: all states stacked, and all pairs of clients in a loop."""

from collections.abc import Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]


def weighted_mean(states: Sequence[State], weights: Sequence[float]) -> State:
    """sum_k w_k theta_k / sum_k w_k of all states at once, in float64."""
    shares_K = torch.tensor(weights, dtype=torch.float64)
    shares_K = shares_K / shares_K.sum()
    result = {}
    for name, first in states[0].items():
        stacked = torch.stack([state[name].double() for state in states])
        shares = shares_K.reshape(-1, *[1] * first.ndim)
        result[name] = (stacked * shares).sum(dim=0).to(first.dtype)
    return result


def adaptive_text_aggregation(states: Sequence[State], num_examples: Sequence[int], num_neighbors: int) -> list[State]:
    """ATA, with a_k by numbers of examples: Theta_k' = a_k Theta_k + (1 - a_k) sum_j w_kj Theta_j.

    N_M(k) are the M nearest others by ||Theta_k - Theta_j||_2, w_kj is proportional to 1 / d_kj and sums to 1, and
    a_k = n_k / (n_k + sum_j w_kj n_j). No two states may be equal.
    """
    result = []
    for k, own in enumerate(states):
        distances = []
        for j, other in enumerate(states):
            if j != k:
                squares = [(own[name].double() - other[name].double()).square().sum() for name in own]
                distances.append((float(torch.stack(squares).sum().sqrt()), j))
        nearest = sorted(distances)[:num_neighbors]
        total = sum(1 / distance for distance, _ in nearest)
        weights = [(1 / distance / total, j) for distance, j in nearest]
        around = sum(weight * num_examples[j] for weight, j in weights)
        share = num_examples[k] / (num_examples[k] + around)
        parts = [(share, own), *(((1 - share) * weight, states[j]) for weight, j in weights)]
        result.append(
            {name: sum(weight * state[name].double() for weight, state in parts).to(own[name].dtype) for name in own}
        )
    return result
