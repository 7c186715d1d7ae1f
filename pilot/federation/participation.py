"""Simulated participation of clients in rounds: a schedule drawn before the run and saved in its folder.

A round wants m = ceil(fraction K) of K clients and selects ceil(m (1 + over_selection)) of them, at most K. A selected
client drops out with probability `dropout`, and is slow with probability `stragglers`. Clients that arrive after the
deadline are late; of the others, the first m to arrive are present, and the rest are not needed.

Time is simulated, in units of a normal client's local training in a round: 1, or `slowdown` for a straggler, plus up to
10 %, so that arrivals have an order. With a virtual clock, times are those of the clients' sessions
(`pilot.federation.virtual_clock`). The run does not wait for this time to pass.

Every draw is a function of (seed, round, client, purpose), so removing a client leaves the draws of all others
unchanged. The selection may still change: another client takes the place of the removed one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from pilot.config.federation import ClockConfig, ParticipationConfig
from pilot.federation.virtual_clock import Wave, asynchronous_rounds, session_time
from pilot.io.seeding import generator

JITTER = 0.1
"""Largest share by which a client exceeds its usual time."""


class Participation(ParticipationConfig):
    """Options of a schedule."""

    def num_wanted(self, num_clients: int) -> int:
        """Return m, the number of updates that a round wants; shares are read as the decimals that they print as."""
        return math.ceil(Fraction(str(self.fraction)) * num_clients)

    def num_selected(self, num_clients: int) -> int:
        """Return the number of clients that a round selects."""
        wanted = self.num_wanted(num_clients)
        return min(num_clients, math.ceil(wanted * (1 + Fraction(str(self.over_selection)))))


@dataclass(frozen=True)
class RoundSchedule:
    """One round. `selected` is the union of `dropped`, `late`, `unneeded` and `present`; all are ascending client ids.

    Attributes:
        round: counted from 1.
        selected: clients asked to take part.
        dropped: clients that send nothing.
        duration: simulated time of every other selected client.
        late: clients that arrive after the deadline.
        unneeded: clients that arrive in time, but after enough others.
        present: clients whose updates are aggregated, if the guard accepts them.
        end: time of the virtual clock when the round ends; None without a clock.
        waves: what starts and arrives when, in asynchronous rounds; then `present` are those who start in the round.
    """

    round: int
    selected: tuple[int, ...]
    dropped: tuple[int, ...]
    duration: Mapping[int, float]
    late: tuple[int, ...]
    unneeded: tuple[int, ...]
    present: tuple[int, ...]
    end: float | None = None
    waves: tuple[Wave, ...] = ()

    def to_row(self) -> dict[str, Any]:
        """Convert to JSON: lists, and durations keyed by client id as a string."""
        lists = {name: list(getattr(self, name)) for name in ("selected", "dropped", "late", "unneeded", "present")}
        row = {"round": self.round, **lists, "duration": {str(k): value for k, value in self.duration.items()}}
        row |= {} if self.end is None else {"end": self.end}
        return row | ({"waves": [wave.to_row() for wave in self.waves]} if self.waves else {})

    def sessions_of(self, client: int) -> int:
        """Count a client's sessions in the round."""
        if not self.waves:
            return int(client in self.present)
        return sum(session.client == client for wave in self.waves for session in wave.sessions)


def schedule(
    config: Participation, clients: Sequence[int], rounds: int, seed: int, steps: Mapping[int, int] | None = None,
    asynchronous: bool = False,
) -> list[RoundSchedule]:  # fmt: skip
    """Draw the rounds 1..`rounds`, a function of the arguments; the order of `clients` does not matter.

    Args:
        config: the options.
        clients: all clients.
        rounds: the number of rounds.
        seed: the run's seed.
        steps: optimiser steps of a session, by client; needed with a clock and for asynchronous rounds.
        asynchronous: whether clients start again as soon as their updates have arrived; equal speeds without a clock.

    Raises:
        ValueError: there are no clients or duplicate ones, the quorum can never be met, or asynchronous rounds are
            asked for beside an option that they do not have.
    """
    ordered = sorted(set(clients))
    if not ordered or len(ordered) != len(clients):
        raise ValueError(f"clients: expected at least one and each once, got {list(clients)}")
    wanted = config.num_wanted(len(ordered))
    if config.quorum > wanted:
        raise ValueError(
            f"participation.quorum: expected at most {wanted}, the clients of a round ({config.fraction:g} of "
            f"{len(ordered)}), got {config.quorum}. Lower it, or increase participation.fraction"
        )
    if asynchronous:
        return _asynchronous(config, {client: (steps or {})[client] for client in ordered}, rounds, seed)
    drawn = [_round(config, ordered, number, seed, steps) for number in range(1, rounds + 1)]
    return drawn if config.clock is None else _timed(drawn, config, wanted)


def to_json(config: Participation, seed: int, rounds: Sequence[RoundSchedule]) -> dict[str, Any]:
    """Return the content of `participation.json`: the options, the seed and the rounds drawn."""
    return {"options": config.model_dump(), "seed": seed, "rounds": [each.to_row() for each in rounds]}


def _asynchronous(config: Participation, steps: Mapping[int, int], rounds: int, seed: int) -> list[RoundSchedule]:
    for name in ("fraction", "over_selection", "quorum", "deadline", "dropout", "stragglers"):
        value, default = getattr(config, name), ParticipationConfig.model_fields[name].default
        if value != default:
            raise ValueError(
                f"participation.{name}: expected {default} for an asynchronous method, whose clients never wait for "
                f"each other, got {value}. Leave it out"
            )
    found = []
    drawn = asynchronous_rounds(config.clock or ClockConfig(), steps, rounds, seed)
    for number, waves in enumerate(drawn, start=1):
        present = tuple(sorted({session.client for wave in waves for session in wave.sessions}))
        found.append(RoundSchedule(number, present, (), {}, (), (), present, waves[-1].end, waves))
    return found


def _timed(rounds: Sequence[RoundSchedule], config: Participation, wanted: int) -> list[RoundSchedule]:
    """Add the time at which each round ends: with the last update that it waits for, or at the deadline."""
    found: list[RoundSchedule] = []
    for each in rounds:
        waited = max((each.duration[client] for client in each.present), default=0.0)
        if each.late and len(each.present) < wanted and config.deadline is not None:
            waited = config.deadline
        found.append(replace(each, end=waited + (found[-1].end or 0.0 if found else 0.0)))
    return found


def _round(
    config: Participation, clients: Sequence[int], number: int, seed: int, steps: Mapping[int, int] | None
) -> RoundSchedule:
    def draw(client: int, purpose: str) -> float:
        return float(generator(seed, "participation", number, client, purpose).random())

    ranked = sorted(clients, key=lambda client: (draw(client, "selection"), client))
    selected = sorted(ranked[: config.num_selected(len(clients))])
    duration = {}
    for client in selected:
        if draw(client, "dropout") < config.dropout:
            continue
        if config.clock is not None:
            duration[client] = session_time(config.clock, client, number, (steps or {})[client])
        else:
            usual = config.slowdown if draw(client, "straggler") < config.stragglers else 1.0
            duration[client] = usual * (1 + JITTER * draw(client, "jitter"))
    arrivals = sorted(duration, key=lambda client: (duration[client], client))
    in_time = [client for client in arrivals if config.deadline is None or duration[client] <= config.deadline]
    wanted = config.num_wanted(len(clients))
    return RoundSchedule(
        round=number,
        selected=tuple(selected),
        dropped=tuple(client for client in selected if client not in duration),
        duration=duration,
        late=tuple(sorted(set(arrivals) - set(in_time))),
        unneeded=tuple(sorted(in_time[wanted:])),
        present=tuple(sorted(in_time[:wanted])),
    )
