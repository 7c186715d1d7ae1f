"""The server's part after a phase: check updates, aggregate them, account for their costs, record the phase.

Answers are taken one by one in the order of client ids and passed to the method's aggregation, so a method that
averages never holds more than one update.
"""

import itertools
import time
from collections.abc import Iterator
from typing import Any

from pilot.federation.drift import Drift
from pilot.federation.guard import reason_to_exclude
from pilot.federation.ledger import Ledger
from pilot.federation.participant import ClientFailure, ClientResult
from pilot.federation.rounds import Plan, RoundPhase
from pilot.federation.store import Version
from pilot.federation.timing import Clock
from pilot.federation.transport import Answer
from pilot.methods.base import ServerState, State, Update


class Collector:
    """Collector of one phase's answers.

    Args:
        plan: the run's plan.
        round_phase: the phase.
        server: the server's state before the phase.
        ledger: the run's costs.
        clock: the run's times.
        parallel: whether clients work at the same time.

    Attributes:
        row: the phase's row in `rounds.jsonl`.
        versions: private states of the clients whose updates were accepted; empty if the phase was skipped.
    """

    def __init__(
        self, plan: Plan, round_phase: RoundPhase, server: ServerState, ledger: Ledger, clock: Clock, parallel: bool
    ) -> None:
        self.plan, self.round_phase, self.server = plan, round_phase, server
        self.ledger, self.clock, self.parallel = ledger, clock, parallel
        schedule = plan.schedule[round_phase.round_number - 1].to_row()
        self.row: dict[str, Any] = {
            "round": round_phase.round_number, "phase": round_phase.phase.name, "excluded": [], "skipped": False,
            "participation": {name: schedule[name] for name in ("dropped", "late", "unneeded")},
            "clients": [], "aggregation": {}, "defence": {},
        }  # fmt: skip
        self.versions: dict[int, Version] = {}
        self._infos = {info.client: info for info in plan.clients}
        self._exchanges = plan.method.exchanges and not round_phase.is_early
        self._accepted, self._drift = set[int](), Drift(server.shared if plan.method.mean_product else None)
        wave, end = round_phase.wave, plan.schedule[round_phase.round_number - 1].end
        if wave is not None:
            self.row["wave"] = wave.to_row()
        if end is not None:
            self.row["end"] = end if wave is None else wave.end
        self._train_seconds, self._step_seconds, self._waited = [0.0], [0.0], 0.0
        for client in plan.schedule[round_phase.round_number - 1].present:
            if round_phase.leaves_out(client):
                self._exclude(client, "left out, as it has no valid result of an earlier phase of the round")

    @property
    def failed(self) -> frozenset[int]:
        """Return the clients without a valid result: they failed or were excluded, or the phase was skipped."""
        excluded = {each["client"] for each in self.row["excluded"]}
        return frozenset(excluded | self._accepted if self.row["skipped"] else excluded)

    def collect(self, answers: Iterator[Answer]) -> ServerState:
        """Aggregate the valid updates; return the server's next state, unchanged if the phase is skipped."""
        began = time.perf_counter()
        after, wave = self._aggregate(self._accepted_updates(answers)), self.round_phase.wave
        if wave is not None:
            after = ServerState(after.shared, after.per_client, {"arrivals": []})
            for session in wave.arrivals:
                after = self.plan.method.arrive(after, session.client)
            self.row["aggregation"] = dict(after.record)
        elif len(self._accepted) < (1 if self.round_phase.is_early else self.plan.quorum):
            after, self.versions, self.row["skipped"] = self.server, {}, True
        elif self._exchanges:
            self.row["aggregation"] = dict(after.record)
            if (ratio := self._drift.value(after.shared)) is not None:
                self.row["drift"] = ratio
        self.ledger.close_phase()
        self._add_times(time.perf_counter() - began)
        return after

    def _accepted_updates(self, answers: Iterator[Answer]) -> Iterator[Update]:
        """Yield the updates that pass the guard, in the order of clients; record why others are excluded."""
        while True:
            began = time.perf_counter()
            answer = next(answers, None)
            self._waited += time.perf_counter() - began
            if answer is None:
                return
            if isinstance(answer, ClientFailure):
                self._exclude(answer.client, answer.reason)
                continue
            self._record_result(answer)
            update, phase, method = answer.update, self.round_phase.phase, self.plan.method
            expected, num_examples = self._untrained(update.client), self.plan.num_examples[update.client]
            reason = reason_to_exclude(update, expected, phase, self._infos[update.client].task, num_examples)
            reason = reason or method.rejection_reason(phase, update)
            if reason:
                self._exclude(update.client, reason)
                continue
            self._accepted.add(update.client)
            if answer.version:
                self.versions[update.client] = answer.version
            yield update

    def _aggregate(self, updates: Iterator[Update]) -> ServerState:
        """Return the server's next state; it is unchanged if nothing is aggregated."""
        after, defence = self.server, self.plan.defence
        first = next(updates, None)
        if first is not None and self._exchanges:
            defended = defence.apply(itertools.chain([first], updates), self._untrained, self.row["defence"])
            after = self.plan.method.aggregate(self.round_phase.phase, self._with_drift(defended), after, defence.mean)
        for _ in updates:  # consume what is left if nothing was aggregated
            pass
        return after

    def _with_drift(self, updates: Iterator[Update]) -> Iterator[Update]:
        """Yield updates unchanged; add each to the drift statistics."""
        for update in updates:
            self._drift.add(update)
            yield update

    def _untrained(self, client: int) -> State:
        """Compute what a client would send without training."""
        info, phase = self._infos[client], self.round_phase.phase
        return self.plan.template(phase, info, self.plan.method.payload(self.server, info, phase))

    def _exclude(self, client: int, reason: str) -> None:
        self.row["excluded"].append({"client": client, "reason": reason})

    def _record_result(self, result: ClientResult) -> None:
        """Add an answer to the ledger, the row and the times."""
        update, report, round_phase = result.update, result.report, self.round_phase
        statistics = {f"statistics.{name}": value for name, value in update.statistics.items()}
        self.ledger.count_message(
            round_phase.round_number, round_phase.phase.name, update.client, "up", update.state, statistics
        )
        self.ledger.count_training(report)
        self._train_seconds.append(result.seconds)
        self._step_seconds.append(result.step_seconds)
        self.clock.client_memory_mb = max(self.clock.client_memory_mb, result.peak_memory_mb)
        self.row["clients"].append({
            "client": update.client, "task": update.task, "num_examples": self.plan.num_examples[update.client],
            "steps": report.steps, "losses": report.losses, "diagnostics": report.diagnostics,
            **({"releases": result.releases} if result.releases else {}),
            **({"truncated": report.truncated} if report.truncated else {}),
        })  # fmt: skip

    def _add_times(self, total: float) -> None:
        total_of = max if self.parallel else sum
        train = total_of(self._train_seconds)
        self.clock.train += train
        self.clock.step += total_of(self._step_seconds)
        self.clock.exchange += max(0.0, self._waited - train)
        self.clock.aggregate += total - self._waited
