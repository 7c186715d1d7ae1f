"""FLoRIST. Ramesh et al., "FLoRIST: Singular Value Thresholding for Efficient and Accurate Federated Fine-Tuning of
Large Language Models", 2025, arXiv 2506.09199.

Every round clients start from a fresh LoRA (B zero) on a frozen weight W + s D. Server, for every layer, p_k = n_k / n:

    [p_1 B_1, ..., p_K B_K] [A_1; ...; A_K] = sum_k p_k B_k A_k = U S V^T,   D <- D + U_q S_q V_q^T

with the least q whose squared singular values are a share `energy` of all: exact for 1, compressed below. Clients
receive factors of rank q, from which they compute the new D; a client that missed the last round receives D itself.

Deviations: the server decomposes the product of two thin QR factors instead of two SVDs: the same U S V^T. All clients
have the same rank. A restarts every round from the same values, drawn from the run's seed. D is kept in float32, on the
server and on every client. The connector, which the paper's models lack, is averaged. AdamW instead of SGD, like every
method here. A robust mean replaces the weighted one of the products.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pilot.methods.averaging import PLAIN_GROUPS, Averaging, mean_of_updates, mean_product_factors
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Phase,
    PhaseResult,
    ServerState,
    SplitResult,
    State,
    Update,
    prefixed,
    select,
    sort_by_client,
    unprefixed,
    weighted_mean,
    without,
)
from pilot.methods.lora_products import layers_of, pair_of, product_svd

STEP = "step"
"""Group of a payload: the factors by which D has grown in the last round."""
CURRENT = "current.round"
"""Per client of the last round: it holds the D before that round."""


@dataclass(frozen=True, kw_only=True)
class Florist(Averaging):
    """Averaging whose server adds the truncated mean product to D.

    Attributes:
        energy: share of the squared singular values that is kept in every layer, above 0 and at most 1.
    """

    name: ClassVar[str] = "florist"
    offsets: ClassVar[bool] = True
    mean_product: ClassVar[bool] = True

    energy: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.energy <= 1:
            raise ValueError(f"energy: expected a number above 0 and at most 1, got {self.energy}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round."""
        return (Phase(name="train", trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS, auxiliary=frozenset({STEP})),)

    def largest_messages(self) -> "Florist":
        """Return the method without truncation."""
        return replace(self, energy=1.0)

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the connector, and what the client lacks of D: the last step, or all of it."""
        return select(server.shared, {"connector", STEP if client.client in server.per_client else "offset"})

    def initial_state(self, phase: Phase, client: ClientInfo, stored: State, payload: State) -> State:
        """Load the connector and D, which has grown by the received step; LoRA keeps its initial values."""
        grew = grown(select(stored, {"offset"}), unprefixed(payload, STEP))
        return {**grew, **without(payload, phase.auxiliary)}

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send LoRA and the connector; keep D."""
        return SplitResult(select(result.end, phase.shared), select(result.end, {"offset"}))

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Truncate every layer's mean product and add it to D; average the connectors."""
        updates = sort_by_client(updates)
        step: State = {}
        ranks: dict[str, int] = {}
        for layer, left_OR, right_RI in mean_product_factors(updates, mean):
            u_OK, s_K, v_KI = product_svd(left_OR, right_RI)
            if rank := rank_of_energy(s_K, self.energy):
                step[f"text_adapter.{layer}.lora_A"] = v_KI[:rank].float()
                step[f"text_adapter.{layer}.lora_B"] = (u_OK[:, :rank] * s_K[:rank]).float()
            ranks[layer] = rank
        offset = grown(select(server.shared, {"offset"}), step)
        shared = {**mean_of_updates(updates, {"connector"}, mean), **offset, **prefixed(step, STEP)}
        return ServerState(shared, {u.client: {CURRENT: torch.ones(1)} for u in updates}, {"ranks": ranks})


def grown(offset: State, step: State) -> State:
    """Add a step's products to D (O, I) of every layer, in float64, rounded to float32; no D counts as zero."""
    result = dict(offset)
    for layer in layers_of(step):  # a layer in float64 at a time
        a_QI, b_OQ = pair_of(step, layer)
        name = f"offset.{layer}.weight"
        result[name] = (offset.get(name, torch.zeros(())) + b_OQ @ a_QI).float()
    return result


def rank_of_energy(s_K: Tensor, energy: float) -> int:
    """Return the least number of leading singular values whose squares are a share `energy` of all; 0 without any."""
    share_K = s_K.square().cumsum(0) / s_K.square().sum()
    return min(int((share_K < energy).sum()) + 1, len(s_K))
