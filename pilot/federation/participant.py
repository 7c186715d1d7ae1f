"""One client's part in a phase, the same under every transport: load, train, hand over, keep the rest."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from pilot.errors import UserError
from pilot.federation.client import ClientReport, PhaseTask, Trained
from pilot.federation.guard import check_outgoing
from pilot.federation.store import ClientStore, Version, version_name
from pilot.methods.base import State, Update

Outgoing = Callable[[PhaseTask, Trained], Update]
"""What becomes of an update before it leaves: noise, or a simulated fault."""


@dataclass(frozen=True)
class ClientResult:
    """What comes back from a client.

    Attributes:
        update: what left it.
        report: losses, steps and sizes.
        version: the private state that it keeps; None where there is none.
        seconds: wall time of the client's work.
        step_seconds: its part in optimiser steps.
        peak_memory_mb: largest resident memory of the process that did it.
        releases: messages with fresh noise that have left the client so far, this one included; 0 where none is added.
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
    """A client that was asked and gave no usable answer."""

    client: int
    reason: str


def untouched(task: PhaseTask, trained: Trained) -> Update:
    """The update as it was trained."""
    return trained.update


@dataclass(frozen=True)
class Participant:
    """A client with its trainer and its own store.

    Attributes:
        outgoing: what becomes of an update before it leaves.
        discreet: losses and diagnostics stay on the client, since no noise is added to them.
        fresh_noise: every message has noise of its own, so the client counts its messages.
    """

    train: Callable[[PhaseTask, State], Trained]
    store: ClientStore
    outgoing: Outgoing = untouched
    discreet: bool = False
    fresh_noise: bool = False

    def run(self, task: PhaseTask) -> ClientResult:
        """Train a phase from the private state that the task names; what stays is on disk before anything leaves.

        Raises:
            UserError: the private state is missing or damaged.
            PrivacyError: the update holds what may not leave.
        """
        began = time.perf_counter()
        result = self.train_phase(task).hand_over()
        return replace(result, seconds=time.perf_counter() - began)

    def train_phase(self, task: PhaseTask) -> "Finished":
        """The part of `run` that computes; the same errors."""
        trained = self.train(task, self.store.load(task.base))
        update = self.outgoing(task, trained)
        check_outgoing(update, task.phase)
        return Finished(self, task, replace(trained, update=update))

    def check(self, version: Version) -> str:
        """What is wrong with a private state; empty if nothing is."""
        try:
            self.store.load(version)
        except UserError as error:
            return str(error)
        return ""


@dataclass(frozen=True)
class Finished:
    """A phase that is trained, of which nothing is on disk yet and nothing has left."""

    participant: Participant
    task: PhaseTask
    trained: Trained

    @property
    def num_bytes(self) -> int:
        """Of the tensors that stay and of those that leave."""
        tensors = (*self.trained.private.values(), *self.trained.update.state.values())
        return sum(tensor.nbytes for tensor in tensors)

    def hand_over(self) -> ClientResult:
        """Write what stays; then the answer may leave.

        Raises:
            UserError: the client's folder cannot be written to.
        """
        own, trained = self.participant, self.trained
        name = version_name(self.task.round_number, self.task.phase_index)
        version = own.store.save(name, trained.private) if trained.private else None
        own.store.keep({*self.task.keep, name})
        releases = own.store.count_release() if own.fresh_noise else 0
        report = replace(trained.report, losses={}, diagnostics={}, truncated={}) if own.discreet else trained.report
        return ClientResult(trained.update, report, version, 0.0, peak_memory_mb(), releases, trained.step_seconds)


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (2^20 bytes)."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
