"""Choice of each client's connector experts by activation probabilities: Mei et al. 2024, arXiv 2408.11304."""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pilot.methods.base import Mean, State, Update

_ROUNDING = 1e-6  # tolerance for a mass that falls short of theta by rounding


def expert_of(name: str) -> int | None:
    """Return a name's expert: 3 for `experts.3.linear_1.weight` and `router.3.weight`, None for other names."""
    group, _, rest = name.partition(".")
    return int(rest.split(".", 1)[0]) if group in ("experts", "router") else None


def mask_of(experts: Collection[int], num_experts: int) -> Tensor:
    """Return (E,) float32, 1 for the experts in `experts`, else 0."""
    return torch.tensor([float(expert in experts) for expert in range(num_experts)])


def indices_of(mask_E: Tensor) -> list[int]:
    """Return the experts of a mask, ascending."""
    return [int(expert) for expert in mask_E.nonzero().flatten()]


def choose_experts(probabilities: Sequence[float], theta: float) -> tuple[int, ...]:
    """Return the smallest set of experts with at least theta of the mass, ascending; ties by index.

    Raises:
        ValueError: a probability is negative or not a number, or their sum is not above 0.
    """
    total = sum(probabilities)
    if not total > 0 or any(not p >= 0 for p in probabilities):
        raise ValueError(f"activation probabilities: expected non-negative numbers, got {list(probabilities)}")
    chosen: list[int] = []
    mass = 0.0
    for expert in _best_first(range(len(probabilities)), probabilities):
        if mass >= theta * total - _ROUNDING:
            break
        chosen.append(expert)
        mass += probabilities[expert]
    return tuple(sorted(chosen))


def recommend_experts(
    client: int, probabilities: Mapping[int, Tensor], held: Mapping[int, Sequence[int]], num_neighbors: int
) -> tuple[int, ...]:
    """Recommend the experts that similar clients use: eq. 4 to 6.

    The neighbours N are the clients with the largest cosine of activation probabilities p. With

        n = mean_{a in N} |S_a| - |S_k|, rounded,   p = sum_{a in N} cos(p_k, p_a) p_a / sum_{a in N} cos(p_k, p_a)

    the n experts outside S_k with the largest p are added, or the -n experts in S_k with the smallest p removed.

    Args:
        client: k.
        probabilities: (E,) by client, including k.
        held: S by client, ascending.
        num_neighbors: size of N, at least 1.

    Returns:
        The new S_k, ascending; the old one if there is no other client.
    """
    own_E = probabilities[client].double()
    others = sorted(probabilities.keys() - {client})
    cosines = {other: float(functional.cosine_similarity(own_E, probabilities[other].double(), 0)) for other in others}
    near = sorted(others, key=lambda other: (-cosines[other], other))[:num_neighbors]
    if not near:
        return tuple(held[client])
    size = math.floor(sum(len(held[other]) for other in near) / len(near) + 0.5)
    score_E = torch.stack([cosines[other] * probabilities[other].double() for other in near]).sum(dim=0).tolist()
    if size <= len(held[client]):
        return tuple(sorted(_best_first(held[client], score_E)[:size]))
    outside = [expert for expert in range(len(score_E)) if expert not in held[client]]
    return tuple(sorted([*held[client], *_best_first(outside, score_E)[: size - len(held[client])]]))


def mean_over_holders(updates: Sequence[Update], previous: Mapping[str, Tensor], mean: Mean) -> State:
    """Average each name over the updates that have it, weighted by examples; keep the previous value if none has."""
    result, names = dict(previous), sorted({name for update in updates for name in update.state})
    together: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        together.setdefault(tuple(k for k, u in enumerate(updates) if name in u.state), []).append(name)
    for holders, held in together.items():
        result |= mean(({name: updates[k].state[name] for name in held}, updates[k].num_examples) for k in holders)
    return result


def _best_first(experts: Sequence[int], scores: Sequence[float]) -> list[int]:
    return sorted(experts, key=lambda expert: (-scores[expert], expert))
