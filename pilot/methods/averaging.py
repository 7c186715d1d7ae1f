"""Averaging of what clients send: the base of most methods."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pilot.methods.base import ClientInfo, Method, Phase, ServerState, Update
from pilot.methods.lora_products import layers_of, lora_products, stack_factors
from pilot.methods.mean import Mean, weighted_mean
from pilot.methods.state import State, select

PLAIN_GROUPS = frozenset({"text_adapter", "connector"})


@dataclass(frozen=True, kw_only=True)
class Averaging(Method):
    """One phase per round on LoRA and a plain connector; the server keeps theta = sum_k (n_k / n) theta_k."""

    single_model: ClassVar[bool] = True

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round."""
        return (Phase(name="train", trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS),)

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the global model; nothing before the first aggregation."""
        return dict(server.shared)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average the updates, weighted by numbers of examples."""
        return ServerState(shared=mean_of_updates(updates, phase.shared, mean))


def mean_of_updates(updates: Iterable[Update], groups: Collection[str], mean: Mean = weighted_mean) -> State:
    """Average the updates' `groups`, weighted by numbers of examples, with one update in memory at a time.

    The last bits of sums depend on the order: the driver passes updates ordered by client.
    """
    return mean((select(update.state, groups), update.num_examples) for update in updates)


def mean_product_factors(updates: Sequence[Update], mean: Mean = weighted_mean) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield, for every layer, factors (O, R) and (R, I) of sum_k (n_k / n) B_k A_k; ranks may differ by client.

    With a robust `mean` of the products, the first factor is that mean and the second the identity.
    """
    robust: State = {}
    if mean is not weighted_mean:
        robust = mean((lora_products(update.state), update.num_examples) for update in updates)
    total = sum(update.num_examples for update in updates)
    weighted = [(update.state, update.num_examples / total) for update in updates]
    for layer in layers_of(updates[0].state):
        if robust:
            w_OI = robust[f"offset.{layer}.weight"]
            yield layer, w_OI, torch.eye(w_OI.shape[1], dtype=w_OI.dtype)
        else:
            yield layer, *stack_factors(weighted, layer)
