"""One client's part in a phase, the same for every transport: load, train, keep the private state, send the update."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from pilot.errors import UserError
from pilot.federation.client import ClientReport, PhaseTask, TrainingResult
from pilot.federation.guard import check_outgoing
from pilot.federation.store import ClientStore, Version, version_name
from pilot.methods.base import State, Update

UpdateTransform = Callable[[PhaseTask, TrainingResult], Update]
"""Transformation of an update before it is sent: noise, or a simulated fault."""


@dataclass(frozen=True)
class ClientResult:
    """Answer of a client to a task.

    Attributes:
        update: the update that it sends.
        report: losses, steps and sizes.
        version: version of the private state that it keeps; None if there is none.
        seconds: wall time of the client's work.
        step_seconds: the part of it spent in optimiser steps.
        peak_memory_mb: peak resident memory of the process that did the work.
        releases: messages with fresh noise that the client has sent so far, including this one; 0 if this one is empty
            or has no fresh noise.
    """

    update: Update
    report: ClientReport
    version: Version | None
    seconds: float
    peak_memory_mb: float
    releases: int = 0
    step_seconds: float = 0.0


@dataclass(frozen=True)
class ClientFailure:
    """Failure of a client to give a usable answer, with the reason."""

    client: int
    reason: str


def send_unchanged(task: PhaseTask, trained: TrainingResult) -> Update:
    """Return the update as it was trained."""
    return trained.update


@dataclass(frozen=True)
class Participant:
    """A client with its trainer and its store.

    Attributes:
        transform: transformation of an update before it is sent.
        withhold_metrics: whether losses, diagnostics and truncation counts stay on the client; they get no noise.
        fresh_noise: whether noise is drawn anew for every message, so that the client must count its messages.
    """

    train: Callable[[PhaseTask, State], TrainingResult]
    store: ClientStore
    transform: UpdateTransform = send_unchanged
    withhold_metrics: bool = False
    fresh_noise: bool = False

    def run(self, task: PhaseTask) -> ClientResult:
        """Train a phase from the private state that the task names; the new state is on disk before the answer is sent.

        Raises:
            UserError: the private state is missing or damaged.
            LeakError: the update contains a tensor or statistic that may not leave the client.
        """
        began = time.perf_counter()
        result = self.train_phase(task).commit()
        return replace(result, seconds=time.perf_counter() - began)

    def train_phase(self, task: PhaseTask) -> "PendingResult":
        """Train the phase and prepare the update, without writing the private state; raises as `run`."""
        trained = self.train(task, self.store.load(task.base))
        update = self.transform(task, trained)
        check_outgoing(update, task.phase)
        return PendingResult(self, task, replace(trained, update=update))

    def check(self, version: Version) -> str:
        """Check a private state; return the problem, or an empty string."""
        try:
            self.store.load(version)
        except UserError as error:
            return str(error)
        return ""


@dataclass(frozen=True)
class PendingResult:
    """A trained phase whose private state is not on disk yet and whose update is not sent yet."""

    participant: Participant
    task: PhaseTask
    trained: TrainingResult

    @property
    def num_bytes(self) -> int:
        """Size of the tensors that stay and of those that leave, in bytes."""
        tensors = (*self.trained.private.values(), *self.trained.update.state.values())
        return sum(tensor.nbytes for tensor in tensors)

    def commit(self) -> ClientResult:
        """Write the private state to disk, then return the answer to send.

        Raises:
            UserError: the client's folder cannot be written to.
        """
        client, trained, report = self.participant, self.trained, self.trained.report
        name = version_name(self.task.round_number, self.task.phase_index)
        version = client.store.save(name, trained.private) if trained.private else None
        client.store.keep({*self.task.keep, name})
        releases = client.store.count_release() if client.fresh_noise and trained.update.state else 0
        if client.withhold_metrics:
            report = replace(report, losses={}, diagnostics={}, truncated={})
        return ClientResult(trained.update, report, version, 0.0, peak_memory_mb(), releases, trained.step_seconds)


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process so far, in MB (2^20 bytes)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
