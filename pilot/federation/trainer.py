"""Local training on a client: load the state, train one phase, return what may leave."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache
from pilot.backbone.language import GROUP as LANGUAGE
from pilot.backbone.lora import GROUP as LORA
from pilot.config.model import LearningRates
from pilot.federation.client import PhaseTask, TrainingResult, build_client_model
from pilot.federation.optimisation import Optimiser
from pilot.federation.phase_run import PhaseRun
from pilot.federation.shards import Example, batches, truncation
from pilot.federation.unfinished import PhaseCheckpoint
from pilot.federation.validation import validate
from pilot.io.digest import digest_json
from pilot.io.seeding import seed_for
from pilot.methods.base import VALIDATION_LOSS, Method, State, Update, select
from pilot.methods.mixed_lora import ROUTER

SECONDS_PER_MINUTE = 60


@dataclass(frozen=True)
class TrainSettings:
    """Hyperparameters of local training; a step takes `accumulation` batches of `batch_size` examples."""

    batch_size: int
    learning_rates: LearningRates
    warmup_fraction: float
    weight_decay: float
    max_grad_norm: float
    accumulation: int = 1


@dataclass(frozen=True)
class CheckpointSettings:
    """Where and how often an unfinished phase is saved.

    Attributes:
        folder: function from client id to folder.
        minutes: minutes between saves; 0 to save after every step.
        run: digest of the run's identity, see `run_digest`.
    """

    folder: Callable[[int], Path]
    minutes: float
    run: str


class LocalTrainer:
    """Trainer for any client of a run, in this process, with one frozen backbone for all clients."""

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        settings: TrainSettings,
        features: FeatureCache,
        examples: Mapping[int, Sequence[Example]],
        checkpointing: CheckpointSettings | None = None,
        validation: Mapping[int, Sequence[Example]] = MappingProxyType({}),
    ) -> None:
        self.backbone, self.method, self.settings = backbone, method, settings
        self.features, self.examples = features, examples
        self.checkpointing, self.validation = checkpointing, validation
        self._projector = backbone.projector()

    def run(self, task: PhaseTask, stored: State) -> TrainingResult:
        """Train one phase of one client, from its private state or from where it was interrupted."""
        info, examples = task.info, self.examples[task.info.client]
        truncated = truncation(examples)  # also tokenises the examples, which is not part of the steps' time
        run = self._begin(task, stored)
        checkpoint = self._phase_checkpoint(run)
        began = time.perf_counter()
        gradients = self._optimise(run, checkpoint) if task.steps else {}
        step_seconds = time.perf_counter() - began
        split = run.split_result(gradients)
        update = Update(
            client=info.client,
            task=info.task,
            num_examples=len(examples),
            state=split.shared,
            statistics=self._statistics(run),
        )
        return TrainingResult(update, run.untrained(), split.private, run.report(truncated), step_seconds)

    def train_phase(self, task: PhaseTask, stored: State) -> tuple[PhaseRun, State]:
        """Take the steps of a phase, saving none of them; return it with its model, and its mean gradients if any."""
        run = self._begin(task, stored)
        return run, self._optimise(run, None) if task.steps else {}

    def _begin(self, task: PhaseTask, stored: State) -> PhaseRun:
        info = task.info
        model = build_client_model(self.backbone, self.method, task.phase, info, stored, task.payload, self._projector)
        return PhaseRun(self.backbone, self.method, task, stored, model)

    def optimiser(self, run: PhaseRun) -> Optimiser:
        """Build the optimiser of a phase."""
        settings, task = self.settings, run.task
        return Optimiser(
            run.trainable, select(run.trainable, {LORA, ROUTER, LANGUAGE}),
            settings.learning_rates.of_phase(task.phase.name), task.steps,
            settings.warmup_fraction, settings.weight_decay, settings.max_grad_norm,
            keep_gradients=task.phase.mean_gradients,
        )  # fmt: skip

    def _statistics(self, run: PhaseRun) -> State:
        """Collect the statistics in `Phase.statistics`, from the steps or from the client's validation part."""
        phase, recorder = run.task.phase, run.recorder
        names = sorted(phase.statistics)
        if not phase.validates:
            return {name: recorder.mean(name) for name in names}
        examples = self.validation[run.task.info.client]
        measured = validate(self.backbone, run.model.connector, self.features, examples, self.settings.batch_size)
        recorder.num_forward_tokens += measured.num_tokens
        found = {**measured.diagnostics, VALIDATION_LOSS: torch.tensor([measured.loss])}
        return {name: found[name] for name in names}

    def _optimise(self, run: PhaseRun, checkpoint: PhaseCheckpoint | None) -> State:
        """Take the phase's steps; return the mean gradients if the phase asks for them."""
        settings, task, info = self.settings, run.task, run.task.info
        optimiser = self.optimiser(run)
        done = _resume(run, optimiser, checkpoint)
        source = batches(
            self.examples[info.client], self.features, settings.batch_size,
            seed_for(info.seed, task.round_number, info.client, f"batches {task.phase.name}"), self.backbone.eos_id,
            skip=done * settings.accumulation,
        )  # fmt: skip
        kept = time.monotonic()
        for step in range(done, task.steps):
            optimiser.begin(step)
            run.compute_gradients([next(source) for _ in range(settings.accumulation)])
            if step == done:
                run.require_gradients()
            optimiser.finish()
            due = self.checkpointing and time.monotonic() - kept >= self.checkpointing.minutes * SECONDS_PER_MINUTE
            if checkpoint and (step + 1 == task.steps or due):
                ended = step + 1 == task.steps and not task.phase.mean_gradients
                checkpoint.save(step + 1, run.state() | ({} if ended else optimiser.state()))
                kept = time.monotonic()
        return optimiser.mean_gradients() if task.phase.mean_gradients else {}

    def _phase_checkpoint(self, run: PhaseRun) -> PhaseCheckpoint | None:
        """Return the storage of this unfinished phase, keyed by what it starts from; None if phases are not saved."""
        if self.checkpointing is None:
            return None
        digest = hashlib.sha256()
        for name in sorted(run.start):
            digest.update(name.encode() + run.start[name].numpy().tobytes())
        task, client = run.task, run.task.info.client
        content = {"run": self.checkpointing.run, "client": client, "steps": task.steps, "start": digest.hexdigest()}
        key = digest_json(content)
        return PhaseCheckpoint(self.checkpointing.folder(client), task.round_number, task.phase_index, key)


def _resume(run: PhaseRun, optimiser: Optimiser, checkpoint: PhaseCheckpoint | None) -> int:
    """Restore what an interrupted run saved of the phase; return the number of steps already taken."""
    done, state = checkpoint.load() if checkpoint is not None else (0, {})
    if done:
        run.restore(state)
        if done < run.task.steps or optimiser.keeps_gradients:
            optimiser.restore(state)
    return done
