"""How the driver reaches clients."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from pilot.federation.client import PhaseTask
from pilot.federation.participant import ClientFailure, ClientResult, Participant
from pilot.federation.store import Version

Answer = ClientResult | ClientFailure


class Transport(Protocol):
    """Exchanges tasks for answers, one for each task and in the tasks' order, however they arrive.

    Attributes:
        parallel: whether clients work at the same time.
    """

    parallel: bool

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        """Run every task on its client; `progress(steps)` is called after each client.

        Tasks are taken when there is room for them, so that neither tasks nor answers of all clients are held at once.
        """
        ...

    def verify(self, versions: Mapping[int, Version]) -> str:
        """What is wrong with clients' private states of these versions, for a person to read; empty if nothing is."""
        ...


class LocalTransport:
    """In-process: one copy of the frozen backbone, adapters swapped per client, one client after the other."""

    parallel = False

    def __init__(self, participants: Callable[[int], Participant]) -> None:
        self.participants = participants

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        """Train a client when its answer is asked for."""
        for task in tasks:
            result = self.participants(task.info.client).run(task)
            progress(task.steps)
            yield result

    def verify(self, versions: Mapping[int, Version]) -> str:
        """Reads every private state."""
        return "; ".join(
            problem for client, version in versions.items() if (problem := self.participants(client).check(version))
        )
