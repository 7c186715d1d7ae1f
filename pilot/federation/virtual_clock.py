"""A virtual clock: when clients work, and when the server has their updates. Nothing waits for this time to pass.

A session is a client's local training of a round with its messages. It takes

    steps / speed + delay

in units of one optimiser step of a client of speed 1; a delay is drawn from a range for every session.

Synchronous methods wait in every round for those whom the round waits for. For asynchronous ones, a client starts again
as soon as its update has arrived, until all clients together have sent as many updates as in synchronous rounds;
sessions that would arrive later are not begun. Updates that arrive at the same time are taken in an order drawn from
the run's seed, anew for every session, so that no client is always the last. Clients that start at the same time start
from the same model, after all of them. A wave is what starts at one time, and the updates that arrive until the next
wave.

Everything is a function of the steps, the clock's settings and the seed: all methods and engines see the same.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilot.config.federation import ClockConfig
from pilot.io.seeding import generator


@dataclass(frozen=True)
class Session:
    """A client's training: its number among those of the client, counted from 1, its start and its arrival."""

    client: int
    number: int
    start: float
    arrival: float


@dataclass(frozen=True)
class Wave:
    """Sessions that start at one time, by client, and all that arrive until the next wave, in order."""

    sessions: tuple[Session, ...]
    arrivals: tuple[Session, ...]

    @property
    def start(self) -> float:
        """Return the time at which the sessions start."""
        return self.sessions[0].start

    @property
    def end(self) -> float:
        """Return the time of the last arrival before the next wave; that of the start without any."""
        return self.arrivals[-1].arrival if self.arrivals else self.start

    def to_row(self) -> dict[str, Any]:
        """Convert to JSON."""
        starts = [{"client": s.client, "session": s.number, "arrival": s.arrival} for s in self.sessions]
        arrivals = [{"client": s.client, "session": s.number, "start": s.start} for s in self.arrivals]
        return {"start": self.start, "end": self.end, "starts": starts, "arrivals": arrivals}


def session_time(clock: ClockConfig, client: int, number: int, steps: int) -> float:
    """Compute the time of a client's session: its steps at its speed, and a delay between the bounds."""
    low, high = clock.delays
    delay = low + (high - low) * float(generator(clock.seed, "clock", client, number).random())
    return steps / clock.speeds[client % len(clock.speeds)] + delay


def asynchronous_rounds(clock: ClockConfig, steps: Mapping[int, int], rounds: int, seed: int) -> list[tuple[Wave, ...]]:
    """Draw the waves of `rounds` rounds; a round is the waves that start while the server has its K updates to come.

    With K clients, a wave belongs to round r if the server has had at least (r - 1) K and fewer than r K updates when
    it starts; after the last wave of round r it has had at least r K.

    Args:
        clock: speeds and delays.
        steps: optimiser steps of a session, by client.
        rounds: the total number of sessions, divided by the number of clients.
        seed: the run's, for the order of updates that arrive at the same time.
    """
    waves = _waves(_sessions(clock, steps, rounds * len(steps), seed))
    found: list[list[Wave]] = [[] for _ in range(rounds)]
    arrived = 0
    for wave in waves:
        found[arrived // len(steps)].append(wave)
        arrived += len(wave.arrivals)
    return [tuple(each) for each in found]


def _sessions(clock: ClockConfig, steps: Mapping[int, int], total: int, seed: int) -> list[Session]:
    """Return the first `total` sessions to arrive, in order of arrival, those of one time in a drawn order."""

    def begin(client: int, number: int, start: float) -> tuple[float, float, int, Session]:
        arrival = start + session_time(clock, client, number, steps[client])
        drawn = float(generator(seed, "arrival", client, number).random())
        return arrival, drawn, client, Session(client, number, start, arrival)

    working = [begin(client, 1, 0.0) for client in steps]
    heapq.heapify(working)
    arrived: list[Session] = []
    while len(arrived) < total:
        arrival, _, client, session = heapq.heappop(working)
        arrived.append(session)
        heapq.heappush(working, begin(client, session.number + 1, arrival))
    return arrived


def _waves(arriving: Sequence[Session]) -> list[Wave]:
    starts = sorted({session.start for session in arriving})
    by_start: dict[float, list[Session]] = {start: [] for start in starts}
    for session in arriving:
        by_start[session.start].append(session)
    waves = []
    for start, following in zip(starts, [*starts[1:], float("inf")], strict=True):
        sessions = tuple(sorted(by_start[start], key=lambda session: session.client))
        until = tuple(session for session in arriving if start < session.arrival <= following)
        waves.append(Wave(sessions, until))
    return waves
