"""Pilot with text adapters averaged within tasks: our variant of Pilot (Xiong et al., AAAI 2025), not the paper's.

ATA mixes in the M nearest clients, so a client whose task has fewer than M others always takes in a client of another
task. The server knows every client's task, which Pilot uses for its visual adapters; here also for text adapters:

    Theta_k' = sum_(j in task of k) (n_j / n_task) Theta_j

It sends no more bytes than Pilot. Everything else is as in Pilot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pilot.methods.base import State, Update, select
from pilot.methods.pilot import Pilot, task_aware_aggregation


@dataclass(frozen=True, kw_only=True)
class PilotTaskText(Pilot):
    """Pilot that averages text adapters as it does task adapters."""

    name: ClassVar[str] = "pilot_task_text"

    def mix_text_adapters(self, updates: Sequence[Update]) -> tuple[list[State], dict[str, Any]]:
        """Average text adapters within each task; record each task's clients."""
        states = [select(update.state, {"text_adapter"}) for update in updates]
        tasks = [update.task for update in updates]
        means = task_aware_aggregation(states, [update.num_examples for update in updates], tasks)
        members = {task: [update.client for update in updates if update.task == task] for task in means}
        return [means[task] for task in tasks], {"clusters": members}
