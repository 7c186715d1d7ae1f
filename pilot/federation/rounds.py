"""The plan of a run's rounds, and the split of a round's local steps over its phases."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pilot.federation.defence import Defence
from pilot.federation.participation import RoundSchedule
from pilot.federation.virtual_clock import Wave
from pilot.methods.base import ClientInfo, Method, Phase, State


@dataclass(frozen=True)
class Plan:
    """Plan of a run; `local_steps` is the number of steps that each client takes per round over all its phases.

    `template` computes, from what the server knows, the tensors that a client starts a phase with, of the groups that
    it sends afterwards: the values before training, and the names, shapes and dtypes expected in its update.
    `evaluated` holds the rounds before the last one whose models are kept for evaluation.
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
    evaluated: Collection[int] = ()


@dataclass(frozen=True)
class RoundPhase:
    """One phase of one round.

    Attributes:
        newcomers: clients without private state at the start of the round.
        num_early: number of phases of the round for newcomers only; they come first and exchange nothing.
        failed: clients without an accepted result of an earlier phase of the round, from which this one would start.
        wave: what starts and arrives in an asynchronous round, one after the other; the phase is the same.
    """

    round_number: int
    index: int
    phase: Phase
    newcomers: frozenset[int] = frozenset()
    num_early: int = 0
    wave: Wave | None = None
    failed: frozenset[int] = frozenset()

    @property
    def is_early(self) -> bool:
        """True if this phase is for newcomers only."""
        return self.index < self.num_early

    def leaves_out(self, client: int) -> bool:
        """Return whether a client must not take part: it would send an update of another model than the others'."""
        return bool(self.phase.shared) and self.wave is None and client in self.failed


def split_steps(phases: Sequence[Phase], local_steps: int) -> list[tuple[Phase, int]]:
    """Split a round's steps over its phases, rounding down; the last phase takes the rest, so that the sum is exact."""
    steps = [int(phase.share_of_steps * local_steps) for phase in phases[:-1]]
    return list(zip(phases, [*steps, local_steps - sum(steps)], strict=True)) if phases else []


def min_local_steps(phases: Sequence[Phase]) -> int:
    """Return the smallest number of local steps that gives every phase with a share at least one."""
    return next(
        count for count in itertools.count(1)
        if all(steps for phase, steps in split_steps(phases, count) if phase.share_of_steps > 0)
    )  # fmt: skip
