"""How the driver reaches clients."""

from collections.abc import Callable, Sequence
from typing import Protocol

from pilot.federation.client import ClientResult, LocalTrainer, PhaseTask
from pilot.federation.guard import check_outgoing


class Transport(Protocol):
    """Exchanges tasks for results. Arrival order does not matter: the driver sorts by client."""

    def exchange(self, tasks: Sequence[PhaseTask], progress: Callable[[int], None]) -> list[ClientResult]:
        """Run every task on its client; `progress(steps)` is called after each client."""
        ...


class LocalTransport:
    """In-process: one copy of the frozen backbone, adapters swapped per client."""

    def __init__(self, trainer: LocalTrainer) -> None:
        self.trainer = trainer

    def exchange(self, tasks: Sequence[PhaseTask], progress: Callable[[int], None]) -> list[ClientResult]:
        """Train the clients one after the other."""
        results = []
        for task in tasks:
            result = self.trainer.run(task)
            check_outgoing(result.update, task.phase)
            results.append(result)
            progress(task.steps)
        return results
