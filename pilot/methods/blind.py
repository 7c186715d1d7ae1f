"""References that answer a task's questions without a model, and so without training."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pilot.data.record import InstructionRecord
from pilot.methods.base import Method, Phase


@dataclass(frozen=True, kw_only=True)
class Blind(Method):
    """A method without phases that has no model: it gives one answer to all questions of a task."""

    exchanges: ClassVar[bool] = False
    single_model: ClassVar[bool] = False

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """None."""
        return ()

    @abstractmethod
    def answer(self, records: Sequence[InstructionRecord]) -> str:
        """Answer every question of the task of these training records.

        Raises:
            ValueError: there are no records, or they are not of one task.
        """
