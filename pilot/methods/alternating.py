"""Base class of methods that train B and A of LoRA in turn, so that the other factor is common to all clients.

Odd rounds train, send and average B, even rounds A. B comes first, since A has no gradient while B is zero. A client
keeps the factor that it did not train and receives the other, so that each factor travels every other round; a client
that missed the last round receives both. Turns go by the number of the round: if round 1 is skipped (below quorum), B
is still zero in round 2, in which only the connector learns.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from pilot.methods.averaging import Averaging, mean_of_updates
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Phase,
    PhaseResult,
    ServerState,
    SplitResult,
    State,
    Update,
    select,
    weighted_mean,
)
from pilot.methods.lora_products import A, B

HOLDS_A = "held.lora_A"
"""Per client of the last round: 1 if it holds the global A, 0 if it holds the global B."""


@dataclass(frozen=True, kw_only=True)
class Alternating(Averaging):
    """Averaging of B and A in turn, and of the connector in every round."""

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round on B (odd rounds) or A."""
        factor = B if round_number % 2 else A
        trained = frozenset({factor, "connector"})
        phase = Phase(name=f"train_{letter(factor)}", trainable=trained, shared=trained)
        return (phase if round_number <= 2 else replace(phase, starts_from="earlier payloads"),)

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return what was trained in the last round, to a client without that round's frozen factor both."""
        if client.client not in server.per_client:
            return dict(server.shared)
        holds_a = bool(server.per_client[client.client][HOLDS_A])
        return select(server.shared, {B if holds_a else A, "connector"})

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send what was trained; keep the other factor."""
        frozen = A if B in phase.trainable else B
        return SplitResult(select(result.end, phase.shared), select(result.end, {frozen}))

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average what was trained, and note who holds the other factor."""
        present: list[int] = []

        def noted() -> Iterator[Update]:
            for update in updates:
                present.append(update.client)
                yield update

        shared = {**server.shared, **mean_of_updates(noted(), phase.trainable, mean)}
        holds_a = torch.tensor([float(B in phase.trainable)])
        return ServerState(shared, {client: {HOLDS_A: holds_a} for client in present})


def letter(factor: str) -> str:
    """Return the letter that ends the name of a phase on a factor."""
    return "b" if factor == B else "a"
