"""Agreement of server states: with ours after each round, and with a plain loop from the side's own state.

Sides that average in float32 differ from ours in the last bits after round 1. AdamW's normalised steps enlarge such
differences in round 2, by a factor of hundreds, wherever they come from. So round 2 is also computed by the plain loop
from the side's own state after round 1: then only what the side does in that round can differ.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import load_file

from pilot.bench.rivals.job import KEPT, Job
from pilot.bench.rivals.process import Watch
from pilot.bench.rivals.sides import PLAIN, SIDES, Side
from pilot.errors import UserError

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Agreement:
    """Largest absolute differences of any number of the server's state.

    Attributes:
        round_1, round_2: from our state after that round.
        replayed: after round 2, from the plain loop's state that began with the side's own state after round 1.
    """

    round_1: float
    round_2: float
    replayed: float

    @property
    def holds(self) -> bool:
        """True if each round by itself agrees within the tolerance."""
        return max(self.round_1, self.replayed) <= TOLERANCE


def compare_states(side: Job, ours: Job, run: Callable[[Side, Job], Watch]) -> Agreement:
    """Compare a side's kept states with ours; `run` runs the plain loop for round 2 where they differ after round 1.

    Raises:
        UserError: a state is missing, or names or shapes differ.
    """
    round_1, round_2 = (difference(side.state_file(n), ours.state_file(n)) for n in range(1, KEPT + 1))
    if round_1 == 0:
        return Agreement(round_1, round_2, round_2)
    plain = next(each for each in SIDES if each.name == PLAIN)
    again = replace(side, folder=f"{side.folder}-again", schedule=side.schedule[:KEPT], first_round=KEPT)
    Path(again.folder).mkdir()
    shutil.copyfile(side.state_file(1), again.state_file(1))
    run(plain, again)
    return Agreement(round_1, round_2, difference(side.state_file(KEPT), again.state_file(KEPT)))


def difference(first: Path, second: Path) -> float:
    """Return the largest absolute difference of any number in two files of tensors.

    Raises:
        UserError: a file is missing, or names or shapes differ.
    """
    for path in (first, second):
        if not path.is_file():
            raise UserError(f"{path}: missing. The side did not keep its server's state.")
    a, b = load_file(first), load_file(second)
    if {name: value.shape for name, value in a.items()} != {name: value.shape for name, value in b.items()}:
        raise UserError(f"{first}: other names or shapes than {second}. The sides train different tensors.")
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
