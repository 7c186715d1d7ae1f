"""Transports between the driver and the clients."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from pilot.federation.client import PhaseTask
from pilot.federation.participant import ClientFailure, ClientResult, Participant
from pilot.federation.store import Version

Answer = ClientResult | ClientFailure

MAX_PENDING_BYTES = 2**26
"""Largest size in bytes at which a client's tensors may wait in memory: small writes take as long as empty ones."""


class Transport(Protocol):
    """Exchange of tasks for answers: one answer per task, in the order of the tasks, not of arrival.

    Attributes:
        parallel: whether clients work at the same time.
    """

    parallel: bool

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        """Run every task on its client; call `progress(steps)` after each client.

        Tasks are taken as capacity allows, so that neither tasks nor answers of all clients are held at once.
        """
        ...

    def verify(self, versions: Mapping[int, Version], wait: bool = True) -> str:
        """Check the clients' private states of these versions; return the problems as text, empty if there are none.

        With `wait`, wait for clients that are offline.
        """
        ...


class LocalTransport:
    """In-process transport: one copy of the frozen backbone, adapters swapped per client, one client after the other.

    While a client's small private state is written, the next client is trained. As with every transport, an answer is
    returned only when the state is on disk; syncing takes longer than anything else that is done once per client.
    """

    parallel = False

    def __init__(self, participants: Callable[[int], Participant]) -> None:
        self.participants = participants

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        """Train a client when its answer is requested, or while the previous client's state is being written."""
        with ThreadPoolExecutor(1, "private states") as disk:
            before: _PendingAnswer | None = None
            for task in tasks:
                began = time.perf_counter()
                pending = self.participants(task.info.client).train_phase(task)
                writing = _PendingAnswer(disk.submit(pending.commit), time.perf_counter() - began)
                progress(task.steps)
                if before:
                    yield before.answer()
                before = writing
                if pending.num_bytes > MAX_PENDING_BYTES:
                    del pending
                    yield before.answer()
                    before = None
            if before:
                yield before.answer()

    def verify(self, versions: Mapping[int, Version], wait: bool = True) -> str:
        """Check every private state by reading it."""
        return "; ".join(
            problem for client, version in versions.items() if (problem := self.participants(client).check(version))
        )


@dataclass(frozen=True)
class _PendingAnswer:
    """An answer whose private state is being written, and the client's working time."""

    future: Future[ClientResult]
    seconds: float

    def answer(self) -> ClientResult:
        """Wait until the state is written and return the answer; its time includes the wait."""
        began = time.perf_counter()
        result = self.future.result()
        return replace(result, seconds=self.seconds + time.perf_counter() - began)
