"""Local. Every client trains LoRA and connector on its own data; nothing is exchanged.

theta_k = argmin L_ce on client k's examples. The lower reference of federated training: the same number of
local steps per client and round as every other method.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import PLAIN_GROUPS
from pilot.methods.base import Method, Phase


@dataclass(frozen=True, kw_only=True)
class Local(Method):
    """Local training without exchange; the server hooks are the base class's."""

    name: ClassVar[str] = "local"
    exchanges: ClassVar[bool] = False
    single_model: ClassVar[bool] = False

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase, after which nothing leaves the client."""
        return (Phase(name="train", trainable=PLAIN_GROUPS, shared=frozenset()),)
