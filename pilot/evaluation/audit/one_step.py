"""Messages of a single step, for which theory says what attacks can do; they are made here and belong to no run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from pilot.evaluation.audit.sighting import Sighting
from pilot.federation.client import PhaseTask
from pilot.federation.privacy import privatise, seeded_noise
from pilot.federation.shards import Example, collate
from pilot.federation.trainer import LocalTrainer
from pilot.methods.base import State


@dataclass(frozen=True)
class Step:
    """A single step.

    Attributes:
        batch: number of examples.
        optimiser: plain gradient descent, or the suite's own.
        noise: noise multiplier of the message, clipped to a norm of 1; 0 for none.
    """

    batch: int = 1
    optimiser: Literal["descent", "AdamW"] = "descent"
    noise: float = 0.0

    @property
    def setting(self) -> str:
        """Name of the step in findings."""
        noise = f", noise {self.noise:g}" if self.noise else ""
        return f"one step of {self.optimiser}, batch {self.batch}{noise}"


STEPS = (Step(), Step(4), Step(8), Step(1, "AdamW"), Step(1, noise=1.0))


def take_step(
    trainer: LocalTrainer, task: PhaseTask, stored: State, examples: Sequence[Example], step: Step
) -> Sighting:
    """Return what the server would see of a client that takes one step on these examples."""
    run = trainer.begin(task, stored)
    optimiser = trainer.optimiser(run)
    optimiser.begin(0)
    run.compute_gradients([collate(examples, trainer.features, trainer.backbone.eos_id)])
    gradients = {name: value.grad.clone() for name, value in run.trainable.items() if value.grad is not None}
    if step.optimiser == "AdamW":
        optimiser.finish()
    else:
        with torch.no_grad():
            for name, value in gradients.items():
                run.trainable[name].sub_(value)
    sent, start = run.split_result(gradients if task.phase.mean_gradients else {}).shared, run.untrained()
    if step.noise:
        draw = seeded_noise(task.info.seed, "audit noise", task.info.client, *(each.feature_row for each in examples))
        sent = privatise(sent, start, 1.0, step.noise, draw)
    known = {**task.payload, **sent}
    return Sighting(task.info, task.phase, step.setting, task.payload, start, sent, known)
