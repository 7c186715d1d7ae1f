"""The round loop: whom to ask, what each receives, collect, guard, aggregate, checkpoint, account.

Pure orchestration; it does not know where clients run.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilot.federation.checkpoint import Progress
from pilot.federation.client import ClientResult, PhaseTask
from pilot.federation.guard import split_updates
from pilot.federation.ledger import Ledger
from pilot.federation.transport import Transport
from pilot.methods.base import ClientInfo, Method, Phase, ServerState, State, Update


@dataclass(frozen=True)
class Plan:
    """What a run is made of; `local_steps` is what a client takes per round over all its phases.

    `template` gives, from the server's own knowledge, tensors of the names, shapes and dtypes that a client should
    send after a phase, given what it received.
    """

    method: Method
    clients: Sequence[ClientInfo]
    num_examples: dict[int, int]
    rounds: int
    local_steps: int
    template: Callable[[Phase, ClientInfo, State], State]
    quorum: int = 1


@dataclass
class Clock:
    """Wall time by kind of work, in seconds."""

    train: float = 0.0
    aggregate: float = 0.0


@dataclass
class Driver:
    """Runs the rounds of a plan, from the start or from a checkpoint."""

    plan: Plan
    transport: Transport
    ledger: Ledger
    progress: Callable[[int], None] = lambda steps: None
    checkpoint: Callable[[Progress], None] = lambda progress: None
    clock: Clock = field(default_factory=Clock)

    def run(self, start: Progress | None) -> Progress:
        """All remaining rounds; returns the progress after the last one."""
        now = start or Progress(0, ServerState(), {}, [], {})
        for round_number in range(now.round_number + 1, self.plan.rounds + 1):
            for phase, steps in split_steps(self.plan.method.phases(round_number), self.plan.local_steps):
                self._run_phase(now, round_number, phase, steps)
            now.round_number, now.ledger = round_number, self.ledger.to_json()
            self.checkpoint(now)
        return now

    def _run_phase(self, now: Progress, round_number: int, phase: Phase, steps: int) -> None:
        tasks = []
        expected: dict[int, State] = {}
        for info in self.plan.clients:
            payload = self.plan.method.payload(now.server, info, phase)
            expected[info.client] = self.plan.template(phase, info, payload)
            self.ledger.message(round_number, phase.name, info.client, "down", payload)
            tasks.append(PhaseTask(info, phase, round_number, steps, now.clients.get(info.client, {}), payload))
        began = time.perf_counter()
        results = sorted(self.transport.exchange(tasks, self.progress), key=lambda result: result.update.client)
        self.clock.train += time.perf_counter() - began
        began = time.perf_counter()
        self._receive(now, round_number, phase, results, expected)
        self.clock.aggregate += time.perf_counter() - began

    def _receive(
        self,
        now: Progress,
        round_number: int,
        phase: Phase,
        results: list[ClientResult],
        expected: dict[int, State],
    ) -> None:
        for result in results:
            client = result.update.client
            self.ledger.message(
                round_number, phase.name, client, "up", result.update.state,
                {f"statistics.{name}": value for name, value in result.update.statistics.items()},
            )  # fmt: skip
            self.ledger.trained(result.report)
        accepted, excluded = split_updates(
            [result.update for result in results], expected, phase, self.plan.num_examples
        )
        skipped = len(accepted) < self.plan.quorum
        if not skipped:
            _store(now, results, {update.client for update in accepted})
        row = {
            "round": round_number, "phase": phase.name, "excluded": excluded, "skipped": skipped,
            "clients": [self._client_row(result) for result in results], "aggregation": {},
        }  # fmt: skip
        if not skipped and self.plan.method.exchanges:
            now.server = self.plan.method.aggregate(phase, accepted, now.server)
            row["aggregation"] = dict(now.server.record)
        now.history.append(row)

    def _client_row(self, result: ClientResult) -> dict[str, Any]:
        update: Update = result.update
        return {
            "client": update.client, "task": update.task, "num_examples": self.plan.num_examples[update.client],
            "steps": result.report.steps, "losses": result.report.losses, "diagnostics": result.report.diagnostics,
        }  # fmt: skip


def _store(now: Progress, results: Sequence[ClientResult], accepted: Collection[int]) -> None:
    """Keep what accepted clients trained; an excluded one goes on from what it had."""
    for result in results:
        client = result.update.client
        if client in accepted:
            now.clients[client] = {**now.clients.get(client, {}), **result.state}


def split_steps(phases: Sequence[Phase], local_steps: int) -> list[tuple[Phase, int]]:
    """The round's steps over its phases: rounded down, the last phase takes the rest, so that the sum is exact."""
    steps = [int(phase.share_of_steps * local_steps) for phase in phases[:-1]]
    return list(zip(phases, [*steps, local_steps - sum(steps)], strict=True)) if phases else []
