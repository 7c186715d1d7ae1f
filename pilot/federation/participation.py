"""Simulated participation of clients in rounds: a schedule drawn before the run and saved in its folder.

A round wants m = ceil(fraction K) of K clients and selects ceil(m (1 + over_selection)) of them, at most K. A selected
client drops out with probability `dropout`, and is slow with probability `stragglers`. Clients that arrive after the
deadline are late; of the others, the first m to arrive are present, and the rest are not needed.

Time is simulated, in units of a normal client's local training in a round: 1, or `slowdown` for a straggler, plus up to
10 %, so that arrivals have an order. The run does not wait for this time to pass.

Every draw is a function of (seed, round, client, purpose), so removing a client leaves the draws of all others
unchanged. The selection may still change: another client takes the place of the removed one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pilot.config.federation import ParticipationConfig
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
    """

    round: int
    selected: tuple[int, ...]
    dropped: tuple[int, ...]
    duration: Mapping[int, float]
    late: tuple[int, ...]
    unneeded: tuple[int, ...]
    present: tuple[int, ...]

    def to_row(self) -> dict[str, Any]:
        """Convert to JSON: lists, and durations keyed by client id as a string."""
        lists = {name: list(getattr(self, name)) for name in ("selected", "dropped", "late", "unneeded", "present")}
        return {"round": self.round, **lists, "duration": {str(k): value for k, value in self.duration.items()}}


def schedule(config: Participation, clients: Sequence[int], rounds: int, seed: int) -> list[RoundSchedule]:
    """Draw the rounds 1..`rounds`, a function of the arguments; the order of `clients` does not matter.

    Raises:
        ValueError: there are no clients or duplicate ones, or the quorum can never be met.
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
    return [_round(config, ordered, number, seed) for number in range(1, rounds + 1)]


def to_json(config: Participation, seed: int, rounds: Sequence[RoundSchedule]) -> dict[str, Any]:
    """Return the content of `participation.json`: the options, the seed and the rounds drawn."""
    return {"options": config.model_dump(), "seed": seed, "rounds": [each.to_row() for each in rounds]}


def _round(config: Participation, clients: Sequence[int], number: int, seed: int) -> RoundSchedule:
    def draw(client: int, purpose: str) -> float:
        return float(generator(seed, "participation", number, client, purpose).random())

    ranked = sorted(clients, key=lambda client: (draw(client, "selection"), client))
    selected = sorted(ranked[: config.num_selected(len(clients))])
    duration = {}
    for client in selected:
        if draw(client, "dropout") >= config.dropout:
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
