"""Reference methods that answer a task's questions without a model, hence without training."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pilot.data.record import InstructionRecord
from pilot.methods.base import Method, Phase


@dataclass(frozen=True, kw_only=True)
class Blind(Method):
    """A method without model or phases that gives the same answer to all questions of a task."""

    exchanges: ClassVar[bool] = False
    single_model: ClassVar[bool] = False

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return no phases."""
        return ()

    @abstractmethod
    def answer(self, records: Sequence[InstructionRecord]) -> str:
        """Return the one answer to all questions of a task, given the task's training records.

        Raises:
            ValueError: there are no records, or they are not of one task.
        """
