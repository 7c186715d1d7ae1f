"""Untuned. The backbone as it ships: its original projector, no LoRA, no training.

Shows the performance of pre-training alone.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.base import Method, Phase


@dataclass(frozen=True, kw_only=True)
class Untuned(Method):
    """The backbone without phases, hence without training."""

    name: ClassVar[str] = "untuned"
    exchanges: ClassVar[bool] = False
    single_model: ClassVar[bool] = True

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return no phases."""
        return ()
