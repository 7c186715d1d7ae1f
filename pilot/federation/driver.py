"""The round loop: send tasks to the selected clients, collect a phase's answers, write a checkpoint after each round.

Pure orchestration, independent of where clients run.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pilot.federation.checkpoint import Progress, versions_to_keep
from pilot.federation.client import PhaseTask
from pilot.federation.collector import Collector
from pilot.federation.ledger import Ledger
from pilot.federation.rounds import Plan, RoundPhase, split_steps
from pilot.federation.store import Version
from pilot.federation.timing import Clock
from pilot.federation.transport import Transport
from pilot.federation.virtual_clock import Wave
from pilot.methods.base import ServerState


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
        now = start or Progress(server=self._initial_state())
        for number in range(now.round_number + 1, self.plan.rounds + 1):
            before = dict(now.versions)
            failed: frozenset[int] = frozenset()
            for round_phase in self._round_phases(number, before):
                failed |= self._run_phase(now, replace(round_phase, failed=failed), before)
            now.round_number, now.previous, now.ledger = number, before, self.ledger.to_json()
            if number in self.plan.evaluated:
                now.evaluated[number] = dict(now.versions)
            began = time.perf_counter()
            self.checkpoint(now)
            self.clock.checkpoint += time.perf_counter() - began
        return now

    def _round_phases(self, number: int, known: Mapping[int, Version]) -> list[RoundPhase]:
        """List the phases of a round, preceded by those for clients that take part for the first time."""
        method, schedule = self.plan.method, self.plan.schedule[number - 1]
        if schedule.waves:
            (phase,) = method.phases(number)
            return [RoundPhase(number, index, phase, wave=wave) for index, wave in enumerate(schedule.waves)]
        phases, first = method.phases(number), method.newcomer_phases(number)
        newcomers = frozenset(schedule.selected) - known.keys()
        num_early = len(first) - len(phases) if newcomers & set(schedule.present) else 0
        every = (*first[:num_early], *phases)
        return [RoundPhase(number, index, phase, newcomers, num_early) for index, phase in enumerate(every)]

    def _initial_state(self) -> ServerState:
        """Return the server's state before round 1."""
        clients, method = sorted(self.plan.clients, key=lambda info: info.client), self.plan.method
        phase = method.initial_phase()
        if phase is None or not method.exchanges:
            return ServerState()
        return method.initial_server_state(self.plan.template(phase, clients[0], {}), clients)

    def _run_phase(self, now: Progress, round_phase: RoundPhase, before: Mapping[int, Version]) -> frozenset[int]:
        """Run a phase; return the clients that were asked without an accepted result."""
        collector = Collector(self.plan, round_phase, now.server, self.ledger, self.clock, self.transport.parallel)
        now.server = collector.collect(self.transport.exchange(self._tasks(now, round_phase, before), self.progress))
        now.versions |= collector.versions
        now.history.append(collector.row)
        return collector.failed

    def _tasks(self, now: Progress, round_phase: RoundPhase, before: Mapping[int, Version]) -> Iterator[PhaseTask]:
        """Yield the tasks of the round; count the download of every selected client, even if it will not answer."""
        if round_phase.wave is not None:
            yield from self._tasks_of_wave(now, round_phase, round_phase.wave)
            return
        schedule = self.plan.schedule[round_phase.round_number - 1]
        method, number = self.plan.method, round_phase.round_number
        for info in sorted(self.plan.clients, key=lambda info: info.client):
            is_new = info.client in round_phase.newcomers
            if info.client not in schedule.selected or (round_phase.is_early and not is_new):
                continue
            if round_phase.leaves_out(info.client):
                continue
            payload = method.payload(now.server, info, round_phase.phase)
            self.ledger.count_message(number, round_phase.phase.name, info.client, "down", payload)
            if info.client in schedule.present:
                base = now.versions.get(info.client)
                keep = versions_to_keep(now.versions, before, *now.kept, client=info.client)
                phases = method.newcomer_phases(number) if is_new else method.phases(number)
                index = round_phase.index - (0 if is_new else round_phase.num_early)
                num_steps = split_steps(phases, self.plan.local_steps[info.client])[index][1]
                yield PhaseTask(info, round_phase.phase, number, round_phase.index, num_steps, payload, base, keep)

    def _tasks_of_wave(self, now: Progress, round_phase: RoundPhase, wave: Wave) -> Iterator[PhaseTask]:
        """Yield the tasks of what starts now, numbered by the client's sessions; they need no private state."""
        infos = {info.client: info for info in self.plan.clients}
        for session in wave.sessions:
            info, phase = infos[session.client], round_phase.phase
            payload = self.plan.method.payload(now.server, info, phase)
            self.ledger.count_message(round_phase.round_number, phase.name, info.client, "down", payload)
            yield PhaseTask(info, phase, session.number, 0, self.plan.local_steps[info.client], payload)
