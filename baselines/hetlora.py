"""HetLoRA. Cho et al., "Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models", EMNLP 2024,
arXiv 2401.06432.

Client k trains LoRA of rank r_k, the first rows of A and columns of B. With the tail the rows and columns from
gamma r_k (rounded down) to r_k:

    client:  L_ce + strength * T_k,   T_k = sum over layers of ||B_tail||_F ||A_tail||_F
    pruning: where T_k is smaller after training than before, r_k becomes gamma r_k (rounded down, at least 1)
    server:  w_k = S_k / sum_j S_j,   S_k = sqrt(sum over layers of ||B_k A_k||_F^2)
             A = sum_k w_k pad(A_k),   B = sum_k w_k pad(B_k),   cut to r_k for client k.

Deviations: T_k and S_k are taken over all layers at once, so that a client has one rank and one weight. The server
decides on pruning, from what it sent and what came back: an update is sent at the rank that its client was given, so
that the bytes of a round in which it is pruned are an upper bound of the paper's; from the next round on they are those
of the lower rank. `rounds.jsonl` has ranks, weights and the pruned clients. gamma = 0.99 is that of a public
implementation; strength, and ranks as fractions of the profile's rank by client id, are our choice. The connector is
averaged by numbers of examples, as is LoRA while all products are zero. Rows that no participant of a round holds would
become zero in both factors and could never be learned again: as in FlexLoRA they restart, A at its initial values and B
at zero, if any client has their rank. s = alpha / r is the same for every rank. AdamW instead of SGD.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pilot.methods.averaging import mean_of_updates
from pilot.methods.base import (
    Mean,
    Phase,
    ServerState,
    State,
    Update,
    select,
    sort_by_client,
    unprefixed,
    weighted_mean,
)
from pilot.methods.lora_products import (
    layers_of,
    lora_rank,
    pad_rank,
    pair_of,
    product_norm,
    reset_dead_rows,
    truncate_rank,
)
from pilot.methods.ranks import OWN, START, HeterogeneousRanks


@dataclass(frozen=True, kw_only=True)
class HetLora(HeterogeneousRanks):
    """HetLoRA as described in the module's docstring.

    Attributes:
        gamma: fraction of the rank that remains after pruning, above 0 and at most 1; 1 never prunes.
        strength: weight of T_k in the loss.
    """

    name: ClassVar[str] = "hetlora"

    gamma: float = 0.99
    strength: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma: expected a number above 0 and at most 1, got {self.gamma}")
        if self.strength < 0:
            raise ValueError(f"strength: expected a number of at least 0, got {self.strength}")

    def pruned_rank(self, rank: int) -> int:
        """Return gamma times a rank, rounded down, at least 1."""
        return max(1, math.floor(round(self.gamma * rank, 9)))

    def penalty(self, trainable: State, received: State) -> Tensor | None:
        """Return strength * T_k; None if the strength is 0 or the rank cannot be pruned."""
        rank = int(received[OWN])
        if self.strength == 0 or self.pruned_rank(rank) == rank:
            return None
        return self.strength * tail_norm(trainable, self.pruned_rank(rank), rank).float()

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Prune, then average the padded pairs by S_k, or by numbers of examples while all products are zero."""
        updates = sort_by_client(updates)
        per_client, texts, pruned = dict(server.per_client), [], []
        for update in updates:
            rank, text = int(per_client[update.client][OWN]), select(update.state, {"text_adapter"})
            less = self.pruned_rank(rank)
            if less < rank and tail_norm(text, less, rank) < tail_norm(server.shared, less, rank):
                per_client[update.client] = {OWN: torch.tensor([float(less)])}
                pruned.append(update.client)
                text = truncate_rank(text, less)
            texts.append(text)
        norms = [product_norm(text) for text in texts]
        weights = norms if any(norms) else [float(update.num_examples) for update in updates]
        start = select(server.shared, {START})
        full = lora_rank(unprefixed(start, START))
        padded = ((pad_rank(text, full), weight) for text, weight in zip(texts, weights, strict=True) if weight > 0)
        most = max(int(state[OWN]) for state in per_client.values())
        text = reset_dead_rows(mean(padded), unprefixed(start, START), most)
        shared = {**start, **text, **mean_of_updates(updates, {"connector"}, mean)}
        shares = {str(u.client): float(f"{w / sum(weights):.6g}") for u, w in zip(updates, weights, strict=True)}
        ranks = {str(client): int(state[OWN]) for client, state in sorted(per_client.items())}
        return ServerState(shared, per_client, {"ranks": ranks, "weights": shares, "pruned": pruned})


def tail_norm(state: Mapping[str, Tensor], first: int, last: int) -> Tensor:
    """Compute T_k: sum over layers of ||B||_F ||A||_F of columns and rows `first`..`last`; 0 without any pair."""
    total = torch.zeros((), dtype=torch.float64)
    for layer in layers_of(state):
        a_RI, b_OR = pair_of(state, layer)
        total = total + b_OR[:, first:last].norm() * a_RI[first:last].norm()
    return total
