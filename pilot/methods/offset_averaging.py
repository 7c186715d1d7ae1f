"""Averaging with the exact mean of LoRA's products: an offset of each weight holds what averaged factors do not."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import PLAIN_GROUPS, Averaging
from pilot.methods.base import ClientInfo, Phase, PhaseResult, ServerState, SplitResult, Update, select, sort_by_client
from pilot.methods.lora_products import lora_products
from pilot.methods.mean import Mean, weighted_mean
from pilot.methods.state import State


@dataclass(frozen=True, kw_only=True)
class OffsetAveraging(Averaging):
    """Averaging whose server keeps the offset D of each layer, in float32, and the averaged groups.

    Class attributes:
        averaged: groups that the server averages and sends beside D.
    """

    offsets: ClassVar[bool] = True
    mean_product: ClassVar[bool] = True
    averaged: ClassVar[frozenset[str]] = PLAIN_GROUPS

    def initial_state(self, phase: Phase, client: ClientInfo, stored: State, payload: State) -> State:
        """Load D and the averaged groups; the others keep their initial values."""
        return dict(payload)

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send LoRA and the connector; keep nothing, since the server sends D."""
        return SplitResult(select(result.end, phase.shared), {})

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average groups and products; add to D the mean product minus the product of the averaged factors, as sent."""
        parts = (
            ({**select(u.state, self.averaged), **lora_products(u.state)}, u.num_examples)
            for u in sort_by_client(updates)
        )
        shared = mean(parts)
        sent = lora_products(shared)
        for name in select(shared, {"offset"}):
            before = server.shared[name].double() if name in server.shared else 0.0
            shared[name] = (before + shared[name] - sent.get(name, 0.0)).float()
        return ServerState(shared)
