"""Adaptive text aggregation (ATA): each client's text adapter moves towards the nearest ones.

Xiong et al., AAAI 2025. With Theta_k the text adapter of client k and N_M(k) the M others nearest to it:

    d_kj = ||Theta_k - Theta_j||_2
    w_kj = (1 / d_kj) / sum_{i in N_M(k)} (1 / d_ki)
    Theta_k' = a_k Theta_k + (1 - a_k) sum_{j in N_M(k)} w_kj Theta_j

The paper leaves open a_k, M and the weights at distance 0: see `Neighbourhood` and
`inverse_distance_weights`.

States may be a lazy sequence whose items are loaded on access. Up to `NUM_PAIRWISE` clients are compared pair by
pair, more of them in blocks (blocks.py); "product" distances are always computed pair by pair, since products B A of
all clients' pairs do not fit in memory and their differences have no rows to multiply.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pilot.methods.base import State, weighted_mean
from pilot.methods.blocks import DEFAULT_MEMORY, StateRows, distance_matrix, nearest
from pilot.methods.mean import weighted_means

Distance = Literal["parameters", "product"]
SelfWeight = float | Literal["samples"]
NUM_PAIRWISE = 64


@dataclass(frozen=True)
class Neighbourhood:
    """The neighbours that a client's text adapter is mixed with, and the weights.

    Attributes:
        neighbours: positions of the M nearest others, nearest first; ties by position.
        weights: w_kj of each, summing to 1.
        self_weight: a_k.
    """

    neighbours: tuple[int, ...]
    weights: tuple[float, ...]
    self_weight: float


def adaptive_text_aggregation(
    states: Sequence[State],
    num_examples: Sequence[int],
    *,
    num_neighbors: int = 3,
    self_weight: SelfWeight = "samples",
    distance: Distance = "parameters",
    memory: int = DEFAULT_MEMORY,
) -> list[State]:
    """Mix text adapters by ATA (see the module); return the mixed adapters in the order of `states`.

    Args:
        states: one text adapter per client; they should be ordered by client id.
        num_examples: n_k of each.
        num_neighbors: M; all others if there are fewer. A client without others keeps its adapter.
        self_weight: a_k; "samples" sets a_k = n_k / (n_k + sum_j w_kj n_j).
        distance: "parameters", or "product" for the distance between the products B A of the LoRA pairs,
            which does not change under B -> B R, A -> R^-1 A.
        memory: bytes available for comparing more than `NUM_PAIRWISE` clients.

    Raises:
        ValueError: lengths, names or shapes do not match, an option is invalid, or there are no states.
    """
    neighbourhoods = find_neighbourhoods(
        states, num_examples, num_neighbors=num_neighbors, self_weight=self_weight, distance=distance, memory=memory
    )
    return mix(states, neighbourhoods)


def find_neighbourhoods(
    states: Sequence[State],
    num_examples: Sequence[int],
    *,
    num_neighbors: int = 3,
    self_weight: SelfWeight = "samples",
    distance: Distance = "parameters",
    memory: int = DEFAULT_MEMORY,
) -> list[Neighbourhood]:
    """Find N_M(k), w_kj and a_k of every client; for many clients without a (K, K) matrix.

    Args as in `adaptive_text_aggregation`. `iter_mix` then yields one client's adapter at a time.
    """
    if len(states) <= NUM_PAIRWISE or distance != "parameters":
        return neighbourhoods_from_distances(
            pairwise_distances(states, distance), num_examples, num_neighbors, self_weight
        )
    _check(len(states), num_examples, num_neighbors, self_weight)
    found = nearest(StateRows(states), num_neighbors, memory)
    return neighbourhoods_from_nearest(
        found.indices_KM.tolist(), found.distances_KM.tolist(), num_examples, self_weight
    )


def pairwise_distances(states: Sequence[State], distance: Distance = "parameters") -> list[list[float]]:
    """Compute (K, K) distances d_kj in float64: exactly symmetric, and exactly 0 between equal states."""
    measures: dict[str, Callable[[Sequence[State]], list[list[float]]]] = {
        "parameters": _parameter_distances, "product": _product_distances,
    }  # fmt: skip
    if distance not in measures:
        raise ValueError(f"distance: expected one of {sorted(measures)}, got {distance!r}")
    if len(states) > NUM_PAIRWISE and distance == "parameters":
        matrix: list[list[float]] = distance_matrix(StateRows(states)).tolist()
        return matrix
    for index, state in enumerate(states):
        if [(n, state[n].shape) for n in sorted(state)] != [(n, states[0][n].shape) for n in sorted(states[0])]:
            raise ValueError(f"state {index}: names or shapes differ from the first state's")
    return measures[distance](states)


def neighbourhoods_from_distances(
    distances: Sequence[Sequence[float]],
    num_examples: Sequence[int],
    num_neighbors: int,
    self_weight: SelfWeight,
) -> list[Neighbourhood]:
    """Compute N_M(k), w_kj and a_k of every client from (K, K) distances and (K,) numbers of examples."""
    _check(len(distances), num_examples, num_neighbors, self_weight)
    indices = []
    for k, row in enumerate(distances):
        others = sorted((j for j in range(len(row)) if j != k), key=lambda j: (row[j], j))
        indices.append(others[:num_neighbors])
    near = [[row[j] for j in chosen] for row, chosen in zip(distances, indices, strict=True)]
    return neighbourhoods_from_nearest(indices, near, num_examples, self_weight)


def neighbourhoods_from_nearest(
    indices: Sequence[Sequence[int]],
    distances: Sequence[Sequence[float]],
    num_examples: Sequence[int],
    self_weight: SelfWeight,
) -> list[Neighbourhood]:
    """Compute w_kj and a_k of every client from N_M(k), (K, M) positions nearest first, and their distances (K, M)."""
    _check(len(indices), num_examples, 1, self_weight)
    result = []
    for k, (nearest_others, near) in enumerate(zip(indices, distances, strict=True)):
        weights = inverse_distance_weights(near)
        num_mixed = sum(w * num_examples[j] for w, j in zip(weights, nearest_others, strict=True))
        own = num_examples[k] / (num_examples[k] + num_mixed) if self_weight == "samples" else float(self_weight)
        result.append(Neighbourhood(tuple(nearest_others), weights, own if nearest_others else 1.0))
    return result


def _check(num_states: int, num_examples: Sequence[int], num_neighbors: int, self_weight: SelfWeight) -> None:
    if num_states != len(num_examples):
        raise ValueError(f"{num_states} states but {len(num_examples)} numbers of examples")
    if num_neighbors < 1:
        raise ValueError(f"num_neighbors: expected at least 1, got {num_neighbors}")
    if any(count <= 0 for count in num_examples):
        raise ValueError(f"num_examples: expected positive counts, got {list(num_examples)}")
    if self_weight != "samples" and not (isinstance(self_weight, float | int) and 0 <= self_weight <= 1):
        raise ValueError(f"self_weight: expected 'samples' or a number in 0..1, got {self_weight!r}")


def inverse_distance_weights(distances: Sequence[float]) -> tuple[float, ...]:
    """Compute (1 / d_j) / sum_i (1 / d_i). If some d are 0, these share all the weight, as in the limit."""
    if not distances:
        return ()
    nearest = min(distances)
    closeness = [float(d == 0) if nearest == 0 else nearest / d for d in distances]
    total = sum(closeness)
    return tuple(value / total for value in closeness)


def mix(states: Sequence[State], neighbourhoods: Sequence[Neighbourhood]) -> list[State]:
    """Compute Theta_k' of every client."""
    if len({value.dtype for value in states[0].values()}) != 1 or len(states) > NUM_PAIRWISE:
        return list(iter_mix(states, neighbourhoods))
    return weighted_means(states, _mixing_weights(states, neighbourhoods))


def iter_mix(states: Sequence[State], neighbourhoods: Sequence[Neighbourhood]) -> Iterator[State]:
    """Yield Theta_k' client by client; for each, one state at a time is loaded."""
    for part in _mixing_weights(states, neighbourhoods):
        yield weighted_mean((states[j], weight) for j, weight in part)


def _mixing_weights(states: Sequence[State], neighbourhoods: Sequence[Neighbourhood]) -> list[list[tuple[int, float]]]:
    """Return for each client the positions of the states to mix, and their weights."""
    if len(states) != len(neighbourhoods):
        raise ValueError(f"{len(states)} states but {len(neighbourhoods)} neighbourhoods")
    parts = []
    for k, hood in enumerate(neighbourhoods):
        rest = 1.0 - hood.self_weight
        mixed = [(k, hood.self_weight), *((j, rest * w) for j, w in zip(hood.neighbours, hood.weights, strict=True))]
        parts.append([(j, weight) for j, weight in mixed if weight > 0])
    return parts


def _parameter_distances(states: Sequence[State]) -> list[list[float]]:
    """Compute distances tensor by tensor over all pairs, so that the operands stay in the processor's cache."""
    squares = []
    for name in sorted(states[0]):
        rows_KD = torch.stack([state[name].detach().reshape(-1) for state in states]).double()
        buffer_KD = torch.empty_like(rows_KD)
        below = []
        for k in range(1, len(states)):
            difference = torch.sub(rows_KD[:k], rows_KD[k], out=buffer_KD[:k])
            below.append(difference.mul_(difference).sum(dim=1))
        squares.append([row.tolist() for row in below])
    result = [[0.0] * len(states) for _ in states]
    for k in range(1, len(states)):
        for j in range(k):
            result[k][j] = result[j][k] = float(sum(of_tensor[k - 1][j] for of_tensor in squares) ** 0.5)
    return result


def _product_distances(states: Sequence[State]) -> list[list[float]]:
    wide = [{name: value.double() for name, value in state.items()} for state in states]
    result = [[0.0] * len(states) for _ in states]
    for k in range(len(states)):
        for j in range(k):
            result[k][j] = result[j][k] = _product(wide[k], wide[j])
    return result


def _product(a: State, b: State) -> float:
    """Compute sqrt of the sum over LoRA pairs of ||B_a A_a - B_b A_b||_F^2; other tensors are compared directly.

    B_a A_a - B_b A_b = [B_a, -B_b] [A_a; A_b] = P Q. With P = U R and Q^T = V S (thin QR),
    ||P Q||_F = ||R S^T||_F: no (out x in) matrix is built, and there is no cancellation as with inner products.
    """
    total = 0.0
    for name in sorted(a):
        if "lora_B" in name:
            continue
        partner = name.replace("lora_A", "lora_B")
        if partner == name:
            total += float((a[name].double() - b[name].double()).square().sum())
        elif partner not in a:
            raise ValueError(f"{name}: expected its other factor {partner}, which is missing")
        elif not (torch.equal(a[name], b[name]) and torch.equal(a[partner], b[partner])):
            left = torch.cat([a[partner].double(), -b[partner].double()], dim=1)
            right = torch.cat([a[name].double(), b[name].double()], dim=0)
            total += float((_triangle(left) @ _triangle(right.T).T).square().sum())
    return float(total**0.5)


def _triangle(matrix: Tensor) -> Tensor:
    triangle: Tensor = torch.linalg.qr(matrix, mode="r").R
    return triangle
