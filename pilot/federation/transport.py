"""How the driver reaches clients."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from pilot.federation.client import PhaseTask
from pilot.federation.participant import ClientFailure, ClientResult, Participant
from pilot.federation.store import Version

Answer = ClientResult | ClientFailure

SMALL = 2**26
"""Bytes of a client's tensors up to which they may wait in memory: disks take as long for few bytes as for none."""


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

    def verify(self, versions: Mapping[int, Version], patient: bool = True) -> str:
        """What is wrong with clients' private states of these versions, for a person to read; empty if nothing is.

        `patient` waits for clients that are away.
        """
        ...


class LocalTransport:
    """In-process: one copy of the frozen backbone, adapters swapped per client, one client after the other.

    While a client's small private state is written, the next client is trained. An answer is handed over when the state
    is on disk, as everywhere; making sure of that takes longer than anything else that is done once per client.
    """

    parallel = False

    def __init__(self, participants: Callable[[int], Participant]) -> None:
        self.participants = participants

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        """Train a client when its answer is asked for, or the one before is being written."""
        with ThreadPoolExecutor(1, "private states") as disk:
            before: _Writing | None = None
            for task in tasks:
                began = time.perf_counter()
                finished = self.participants(task.info.client).train_phase(task)
                writing = _Writing(disk.submit(finished.hand_over), time.perf_counter() - began)
                progress(task.steps)
                if before:
                    yield before.answer()
                before = writing
                if finished.num_bytes > SMALL:
                    del finished
                    yield before.answer()
                    before = None
            if before:
                yield before.answer()

    def verify(self, versions: Mapping[int, Version], patient: bool = True) -> str:
        """Reads every private state."""
        return "; ".join(
            problem for client, version in versions.items() if (problem := self.participants(client).check(version))
        )


@dataclass(frozen=True)
class _Writing:
    """An answer whose private state is being written, and how long the client has worked for it."""

    future: Future[ClientResult]
    seconds: float

    def answer(self) -> ClientResult:
        """The answer, when it may leave; its time has the part of the writing that was waited for."""
        began = time.perf_counter()
        result = self.future.result()
        return replace(result, seconds=self.seconds + time.perf_counter() - began)
