"""Untuned. The backbone as it ships: its own projector, no LoRA, no training.

Shows what pre-training alone can do.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.base import Method, Phase


@dataclass(frozen=True, kw_only=True)
class Untuned(Method):
    """No phases, so no client ever trains."""

    name: ClassVar[str] = "untuned"
    exchanges: ClassVar[bool] = False
    single_model: ClassVar[bool] = True

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """None."""
        return ()
