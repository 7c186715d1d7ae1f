"""Averaging of what clients send: the base of most methods."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.base import ClientInfo, Method, Phase, ServerState, Update
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
