"""Who takes part in which round: a simulated schedule, drawn before the run and written into its folder.

A round wants m = ceil(fraction K) of K clients and asks ceil(m (1 + over_selection)) of them, at most K. One that was
asked drops out with probability `dropout`, and is slow with probability `stragglers`. Who arrives after the deadline is
late; of the others the first m to arrive are present, the rest is not needed.

Time is simulated, in units of a usual client's local training in a round: 1, or `slowdown` for a straggler, plus up to
10 %, so that arrivals have an order. Nothing waits for it.

Every draw is a function of (seed, round, client, purpose), so without a client the draws of all others are the same.
Whom a round asks may still change: another takes the place of the one that is gone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from pilot.io.seeding import generator

JITTER = 0.1
"""Largest share by which a client takes longer than its usual time."""


@dataclass(frozen=True, kw_only=True)
class Participation:
    """Options of a schedule; with the defaults everybody is present in every round.

    Attributes:
        fraction: share of the clients that a round wants, in (0, 1].
        over_selection: share of clients asked beyond those wanted, so that drop-out costs none; at least 0.
        quorum: fewest accepted updates with which a round changes anything; at least 1.
        deadline: time after which nothing is waited for; None waits for all. Above 1, or everybody would be late.
        dropout: probability that a client which was asked sends nothing, in [0, 1).
        stragglers: probability that a client is slow in a round, in [0, 1].
        slowdown: time of a slow client, at least 1.

    Raises:
        ValueError: naming the field that is out of range.
    """

    fraction: float = 1.0
    over_selection: float = 0.0
    quorum: int = 1
    deadline: float | None = None
    dropout: float = 0.0
    stragglers: float = 0.0
    slowdown: float = 4.0

    def __post_init__(self) -> None:
        """Check every field."""
        rules = {
            "fraction": (0 < self.fraction <= 1, "a share above 0, at most 1"),
            "over_selection": (0 <= self.over_selection < math.inf, "a share of at least 0"),
            "quorum": (type(self.quorum) is int and self.quorum >= 1, "a whole number of at least 1"),
            "deadline": (self.deadline is None or 1 < self.deadline < math.inf, "a time above 1, or none"),
            "dropout": (0 <= self.dropout < 1, "a probability of at least 0, below 1"),
            "stragglers": (0 <= self.stragglers <= 1, "a probability in 0..1"),
            "slowdown": (1 <= self.slowdown < math.inf, "a factor of at least 1"),
        }
        for field, (fine, expected) in rules.items():
            if not fine:
                raise ValueError(f"participation.{field}: expected {expected}, got {getattr(self, field)!r}")

    def num_wanted(self, num_clients: int) -> int:
        """m: how many updates a round wants; shares are read as the decimals they print as."""
        return math.ceil(Fraction(str(self.fraction)) * num_clients)

    def num_asked(self, num_clients: int) -> int:
        """How many clients a round asks."""
        wanted = self.num_wanted(num_clients)
        return min(num_clients, math.ceil(wanted * (1 + Fraction(str(self.over_selection)))))


@dataclass(frozen=True)
class RoundSchedule:
    """One round. `selected` is made of `dropped`, `late`, `unneeded` and `present`; all are ascending client ids.

    Attributes:
        round: counted from 1.
        selected: who is asked.
        dropped: who sends nothing.
        duration: simulated time of every other client that was asked.
        late: who arrives after the deadline.
        unneeded: who arrives in time, but after enough others.
        present: whose updates are aggregated, if the guard accepts them.
    """

    round: int
    selected: tuple[int, ...]
    dropped: tuple[int, ...]
    duration: Mapping[int, float]
    late: tuple[int, ...]
    unneeded: tuple[int, ...]
    present: tuple[int, ...]

    def to_row(self) -> dict[str, Any]:
        """As JSON: lists, and durations under the client's number as text."""
        lists = {name: list(getattr(self, name)) for name in ("selected", "dropped", "late", "unneeded", "present")}
        return {"round": self.round, **lists, "duration": {str(k): value for k, value in self.duration.items()}}


def schedule(config: Participation, clients: Sequence[int], rounds: int, seed: int) -> list[RoundSchedule]:
    """The rounds 1..`rounds`, a function of the arguments; the order of `clients` does not matter.

    Raises:
        ValueError: there are no clients or doubled ones, or the quorum can never be met.
    """
    ordered = sorted(set(clients))
    if not ordered or len(ordered) != len(clients):
        raise ValueError(f"clients: expected at least one and each once, got {list(clients)}")
    wanted = config.num_wanted(len(ordered))
    if config.quorum > wanted:
        raise ValueError(
            f"participation.quorum: a round wants {wanted} of {len(ordered)} clients, so {config.quorum} updates never "
            f"arrive; expected at most {wanted}, or a larger participation.fraction"
        )
    return [_round(config, ordered, number, seed) for number in range(1, rounds + 1)]


def to_json(config: Participation, seed: int, rounds: Sequence[RoundSchedule]) -> dict[str, Any]:
    """The content of `participation.json`: what was asked for, and what was drawn."""
    return {"options": asdict(config), "seed": seed, "rounds": [each.to_row() for each in rounds]}


def _round(config: Participation, clients: Sequence[int], number: int, seed: int) -> RoundSchedule:
    def draw(client: int, purpose: str) -> float:
        return float(generator(seed, "participation", number, client, purpose).random())

    ranked = sorted(clients, key=lambda client: (draw(client, "selection"), client))
    selected = sorted(ranked[: config.num_asked(len(clients))])
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
