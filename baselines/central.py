"""Central. One model trained on all clients' data pooled, with the same total number of optimiser steps.

theta = argmin L_ce on the union of all examples. The upper reference: it is not a federated method, since
the data leaves the clients.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import PLAIN_GROUPS
from pilot.methods.base import Method, Phase


@dataclass(frozen=True, kw_only=True)
class Central(Method):
    """Training on pooled data; the engine merges all clients into one, whose model is evaluated for all."""

    name: ClassVar[str] = "central"
    exchanges: ClassVar[bool] = False
    pooled: ClassVar[bool] = True
    single_model: ClassVar[bool] = True

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase, after which nothing is sent."""
        return (Phase(name="train", trainable=PLAIN_GROUPS, shared=frozenset()),)
