"""The round loop: select clients, send payloads, collect and check updates, aggregate, checkpoint, account.

Pure orchestration, independent of where clients run. Answers are taken one by one in the order of client ids and passed
to the method's aggregation, so a method that averages never holds more than one update.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilot.federation.checkpoint import Progress, names_to_keep
from pilot.federation.client import PhaseTask
from pilot.federation.defence import Defence
from pilot.federation.drift import Drift
from pilot.federation.guard import reason_to_exclude
from pilot.federation.ledger import Ledger
from pilot.federation.participant import ClientFailure, ClientResult
from pilot.federation.participation import RoundSchedule
from pilot.federation.store import Version
from pilot.federation.transport import Answer, Transport
from pilot.methods.base import ClientInfo, Method, Phase, ServerState, State, Update


@dataclass(frozen=True)
class Plan:
    """Plan of a run; `local_steps` is the number of steps that each client takes per round over all its phases.

    `template` computes, from what the server knows, the tensors that a client starts a phase with, of the groups that
    it sends afterwards: the values before training, and the names, shapes and dtypes expected in its update.
    """

    method: Method
    clients: Sequence[ClientInfo]
    num_examples: Mapping[int, int]
    rounds: int
    local_steps: Mapping[int, int]
    template: Callable[[Phase, ClientInfo, State], State]
    schedule: Sequence[RoundSchedule]
    quorum: int = 1
    defence: Defence = Defence()


@dataclass
class Clock:
    """Wall time by kind of work, in seconds, and the clients' peak memory in MB.

    `step` is the part of `train` spent in optimiser steps; all other time does not depend on their number. If clients
    work at the same time, both count the slowest client of each phase.
    """

    train: float = 0.0
    step: float = 0.0
    exchange: float = 0.0
    aggregate: float = 0.0
    checkpoint: float = 0.0
    client_memory_mb: float = 0.0


@dataclass(frozen=True)
class Step:
    """One phase of one round.

    Attributes:
        newcomers: clients without private state at the start of the round.
        num_early: number of phases of the round for newcomers only; they come first and exchange nothing.
    """

    round_number: int
    index: int
    phase: Phase
    newcomers: frozenset[int] = frozenset()
    num_early: int = 0

    @property
    def is_early(self) -> bool:
        """True if this phase is for newcomers only."""
        return self.index < self.num_early


@dataclass
class _Book:
    """Records of a phase, in addition to the server's state."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    excluded: list[dict[str, object]] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    versions: dict[int, Version] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    waited: float = 0.0


@dataclass
class Driver:
    """Loop over the rounds of a plan, from the start or from a checkpoint."""

    plan: Plan
    transport: Transport
    ledger: Ledger
    progress: Callable[[int], None] = lambda steps: None
    checkpoint: Callable[[Progress], None] = lambda progress: None
    clock: Clock = field(default_factory=Clock)

    def run(self, start: Progress | None) -> Progress:
        """Run all remaining rounds; return the progress after the last one."""
        now = start or Progress(server=self._begin())
        for number in range(now.round_number + 1, self.plan.rounds + 1):
            before = dict(now.versions)
            for step in self._steps(number, before):
                self._run_phase(now, step, before)
            now.round_number, now.previous, now.ledger = number, before, self.ledger.to_json()
            began = time.perf_counter()
            self.checkpoint(now)
            self.clock.checkpoint += time.perf_counter() - began
        return now

    def _steps(self, number: int, known: Mapping[int, Version]) -> list[Step]:
        """List the phases of a round, preceded by those for clients that take part for the first time."""
        method, schedule = self.plan.method, self.plan.schedule[number - 1]
        phases, first = method.phases(number), method.newcomer_phases(number)
        newcomers = frozenset(schedule.selected) - known.keys()
        num_early = len(first) - len(phases) if newcomers & set(schedule.present) else 0
        every = (*first[:num_early], *phases)
        return [Step(number, index, phase, newcomers, num_early) for index, phase in enumerate(every)]

    def _begin(self) -> ServerState:
        """Return the server's state before round 1."""
        clients = sorted(self.plan.clients, key=lambda info: info.client)
        phases = self.plan.method.phases(1)
        if not (phases and self.plan.method.exchanges):
            return ServerState()
        return self.plan.method.begin(self.plan.template(phases[0], clients[0], {}), clients)

    def _run_phase(self, now: Progress, step: Step, before: Mapping[int, Version]) -> None:
        began, book = time.perf_counter(), _Book()
        schedule = self.plan.schedule[step.round_number - 1]
        answers = self.transport.exchange(self._tasks(now, step, before), self.progress)
        updates = self._accepted(answers, now.server, step, book)
        drift = Drift()
        server, note = self._aggregate(updates, now.server, step, drift)
        exchanges = self.plan.method.exchanges and not step.is_early
        skipped = len(book.accepted) < (1 if step.is_early else self.plan.quorum)
        row = {
            "round": step.round_number, "phase": step.phase.name, "excluded": book.excluded, "skipped": skipped,
            "participation": _absent(schedule), "clients": book.rows, "aggregation": {}, "defence": note,
        }  # fmt: skip
        if not skipped:
            now.versions |= book.versions
            if exchanges:
                now.server = server
                row["aggregation"] = dict(server.record)
                if (ratio := drift.value()) is not None:
                    row["drift"] = ratio
        now.history.append(row)
        self.ledger.close_phase()
        self._clock(book, time.perf_counter() - began)

    def _tasks(self, now: Progress, step: Step, before: Mapping[int, Version]) -> Iterator[PhaseTask]:
        """Yield the tasks of the round; count the download of every selected client, even if it will not answer."""
        schedule = self.plan.schedule[step.round_number - 1]
        method, number = self.plan.method, step.round_number
        for info in sorted(self.plan.clients, key=lambda info: info.client):
            is_new = info.client in step.newcomers
            if info.client not in schedule.selected or (step.is_early and not is_new):
                continue
            payload = method.payload(now.server, info, step.phase)
            self.ledger.message(number, step.phase.name, info.client, "down", payload)
            if info.client in schedule.present:
                base = now.versions.get(info.client)
                keep = names_to_keep(now.versions, before, now.previous, client=info.client)
                phases = method.newcomer_phases(number) if is_new else method.phases(number)
                index = step.index - (0 if is_new else step.num_early)
                num_steps = split_steps(phases, self.plan.local_steps[info.client])[index][1]
                yield PhaseTask(info, step.phase, number, step.index, num_steps, payload, base, keep)

    def _accepted(self, answers: Iterator[Answer], server: ServerState, step: Step, book: _Book) -> Iterator[Update]:
        """Yield the updates that pass the guard, in the order of clients; record everything else in `book`."""
        infos = {info.client: info for info in self.plan.clients}
        while True:
            began = time.perf_counter()
            answer = next(answers, None)
            book.waited += time.perf_counter() - began
            if answer is None:
                return
            if isinstance(answer, ClientFailure):
                book.excluded.append({"client": answer.client, "reason": answer.reason})
                continue
            update = answer.update
            self._account(answer, step, book)
            info = infos[update.client]
            expected = self.plan.template(step.phase, info, self.plan.method.payload(server, info, step.phase))
            reason = reason_to_exclude(update, expected, step.phase, info.task, self.plan.num_examples[info.client])
            reason = reason or self.plan.method.reject(step.phase, update)
            if reason:
                book.excluded.append({"client": update.client, "reason": reason})
                continue
            book.accepted.append(update.client)
            if answer.version:
                book.versions[update.client] = answer.version
            yield update

    def _aggregate(
        self, updates: Iterator[Update], server: ServerState, step: Step, drift: Drift
    ) -> tuple[ServerState, Any]:
        """Return the server's next state and the defence's note; the state is unchanged if nothing is aggregated."""
        note: dict[str, Any] = {}
        first = next(updates, None)
        if first is not None and self.plan.method.exchanges and not step.is_early:
            infos = {info.client: info for info in self.plan.clients}

            def received(client: int) -> State:
                payload = self.plan.method.payload(server, infos[client], step.phase)
                return self.plan.template(step.phase, infos[client], payload)

            defended = self.plan.defence.apply(itertools.chain([first], updates), received, note)
            measured = _measured(defended, drift)
            after = self.plan.method.aggregate(step.phase, measured, server, self.plan.defence.mean)
        else:
            after = server
        for _ in updates:  # consume what is left if nothing was aggregated
            pass
        return after, note

    def _account(self, result: ClientResult, step: Step, book: _Book) -> None:
        update = result.update
        statistics = {f"statistics.{name}": value for name, value in update.statistics.items()}
        self.ledger.message(step.round_number, step.phase.name, update.client, "up", update.state, statistics)
        self.ledger.trained(result.report)
        book.seconds.append(result.seconds)
        book.step_seconds.append(result.step_seconds)
        self.clock.client_memory_mb = max(self.clock.client_memory_mb, result.peak_memory_mb)
        book.rows.append({
            "client": update.client, "task": update.task, "num_examples": self.plan.num_examples[update.client],
            "steps": result.report.steps, "losses": result.report.losses, "diagnostics": result.report.diagnostics,
            **({"releases": result.releases} if result.releases else {}),
            **({"truncated": result.report.truncated} if result.report.truncated else {}),
        })  # fmt: skip

    def _clock(self, book: _Book, total: float) -> None:
        total_of = max if self.transport.parallel else sum
        train = total_of([0.0, *book.seconds])
        self.clock.train += train
        self.clock.step += total_of([0.0, *book.step_seconds])
        self.clock.exchange += max(0.0, book.waited - train)
        self.clock.aggregate += total - book.waited


def _measured(updates: Iterator[Update], drift: Drift) -> Iterator[Update]:
    """Yield updates unchanged; add each to the drift statistics."""
    for update in updates:
        drift.add(update)
        yield update


def _absent(schedule: RoundSchedule) -> dict[str, list[int]]:
    """Return the selected clients that did not take part, by reason."""
    row = schedule.to_row()
    return {name: row[name] for name in ("dropped", "late", "unneeded")}


def split_steps(phases: Sequence[Phase], local_steps: int) -> list[tuple[Phase, int]]:
    """Split a round's steps over its phases, rounding down; the last phase takes the rest, so that the sum is exact."""
    steps = [int(phase.share_of_steps * local_steps) for phase in phases[:-1]]
    return list(zip(phases, [*steps, local_steps - sum(steps)], strict=True)) if phases else []


def least_steps(phases: Sequence[Phase]) -> int:
    """Return the smallest number of local steps that gives every phase with a share at least one."""
    return next(
        count for count in itertools.count(1)
        if all(steps for phase, steps in split_steps(phases, count) if phase.share_of_steps > 0)
    )  # fmt: skip
