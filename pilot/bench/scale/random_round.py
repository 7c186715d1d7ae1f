"""One round of a method on synthetic records: three clients, one per task, and the speed and memory of their training.

Records are noise images that go through the vision tower, and random ids for prompts and answers, so that sequences
have the requested length. Everything else is as in a run: the driver, the clients' trainer, the guard, the method's
aggregation.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache
from pilot.config.profile import Profile
from pilot.federation.client import PhaseTask, TrainingResult
from pilot.federation.driver import Driver
from pilot.federation.ledger import Ledger
from pilot.federation.participant import Participant, peak_memory_mb
from pilot.federation.participation import Participation, schedule
from pilot.federation.rounds import Plan
from pilot.federation.shards import Example
from pilot.federation.store import ClientStore
from pilot.federation.trainer import LocalTrainer, TrainSettings
from pilot.federation.transport import LocalTransport
from pilot.io.seeding import generator
from pilot.methods.base import ClientInfo, Phase, State, select
from pilot.registry import make_method

TASKS = ("vqa", "caption", "ground")
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Workload:
    """Size of the work: tokens after each example's image, answer tokens among them, steps per client and stage."""

    text_tokens: int = 64
    answer_tokens: int = 16
    steps: int = 2


@dataclass(frozen=True)
class StageReport:
    """Speed of one stage over its finished clients; tokens are those of the LLM: image, prompt and answer.

    Attributes:
        seconds: wall time of the clients' training, with the set-up of their models.
        step_seconds: wall time of an optimiser step alone, the median of the clients' means.
        peak_memory_mb: see `reset_peak_memory`.
    """

    seconds: float
    step_seconds: float
    samples_per_second: float
    tokens_per_second: float
    trainable_parameters: int
    peak_memory_mb: float


def noise_images(backbone: Backbone, number: int) -> list[Image.Image]:
    """Return images of noise, of the size that the vision tower sees."""
    side = backbone.model.config.vision_config.image_size
    source = generator("bench llava-random", "pictures")
    pixels = source.integers(0, 256, (number, side, side, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in pixels]


def batch_features(backbone: Backbone, profile: Profile) -> tuple[FeatureCache, float]:
    """Compute the features of one batch of noise images; return them, in memory, and images per second."""
    images = noise_images(backbone, profile.batch_size)
    began = time.perf_counter()
    values = backbone.image_features(images).float()
    seconds = time.perf_counter() - began
    return FeatureCache([values.numpy()], "float32", {}, ""), len(images) / seconds


def reset_peak_memory(device: torch.device) -> None:
    """Start a new peak on a GPU; the peak of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_mb(device: torch.device) -> float:
    """Return the peak memory: PyTorch's allocations on a GPU since the last reset, or the process's resident set."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / MEGABYTE, 1)
    return peak_memory_mb()


@dataclass
class Stage:
    """What was measured of a stage so far, by finished client; attributes as in `StageReport`.

    Attributes:
        losses: of every step, by term.
        sequences: sequences that a client trained on.
        used_mb: memory of the GPU in use at the end, by PyTorch and CUDA together; 0 on a CPU.
    """

    sequences: int
    seconds: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    trainable: int = 0
    peak_memory_mb: float = 0.0
    used_mb: float = 0.0
    losses: list[dict[str, list[float | None]]] = field(default_factory=list)

    def report(self) -> StageReport:
        """Report the finished clients, of which there is at least one."""
        seconds = sum(self.seconds)
        return StageReport(
            round(seconds, 4), round(statistics.median(self.step_seconds), 4),
            round(self.sequences * len(self.seconds) / seconds, 3), round(self.tokens / seconds, 1), self.trainable,
            self.peak_memory_mb,
        )  # fmt: skip


@dataclass
class RandomRound:
    """Round 1 of a method, `pilot` or `fedavg`; `stages` holds what was measured, also of a round that was cut off."""

    backbone: Backbone
    profile: Profile
    work: Workload
    features: FeatureCache
    method: str = "pilot"
    stages: dict[str, Stage] = field(default_factory=dict)

    def run(self, progress: Callable[[int, int], None]) -> None:
        """Train the round; the measured seconds are those of local training."""
        backbone, profile, work = self.backbone, self.profile, self.work
        method = make_method(self.method, profile.options_of(self.method))
        infos = [ClientInfo(client, task, TASKS, 0) for client, task in enumerate(TASKS)]
        examples = {info.client: self._examples(info.client) for info in infos}
        settings = TrainSettings(
            profile.batch_size, profile.learning_rates_of(self.method), profile.warmup_fraction, profile.weight_decay,
            profile.max_grad_norm, profile.accumulation,
        )  # fmt: skip
        trainer = LocalTrainer(backbone, method, settings, self.features, examples)
        num_phases, done = len(method.phases(1)), count(1)

        def train(task: PhaseTask, stored: State) -> TrainingResult:
            return self._measure(trainer, task, stored)

        def template(phase: Phase, info: ClientInfo, payload: State) -> State:
            connector = method.make_connector(phase, info, backbone.projector(), payload)
            own = {name: value.detach() for name, value in connector.named_parameters()}
            return select(own | backbone.initial_adapter(0), phase.shared)

        counts = {client: len(rows) for client, rows in examples.items()}
        rounds = schedule(Participation(), list(counts), 1, 0)
        steps = dict.fromkeys(counts, num_phases * work.steps)
        plan = Plan(method, infos, counts, 1, steps, template, rounds, quorum=len(infos))
        with tempfile.TemporaryDirectory() as folder:
            transport = LocalTransport(lambda client: Participant(train, ClientStore(Path(folder) / str(client))))
            driver = Driver(plan, transport, Ledger(backbone.num_language_parameters))
            driver.progress = lambda steps: progress(next(done), num_phases * len(infos))
            final = driver.run(None)
        assert not any(row["excluded"] or row["skipped"] for row in final.history), "every update is aggregated"

    def report(self) -> dict[str, StageReport]:
        """Report every stage that a client has finished."""
        return {name: stage.report() for name, stage in self.stages.items() if stage.seconds}

    def _examples(self, client: int) -> list[Example]:
        profile, work = self.profile, self.work
        source = generator("bench llava-random", "ids", client)
        number = profile.batch_size * profile.accumulation
        ids = source.integers(4, len(self.backbone.tokenizer), (number, work.text_tokens)).tolist()
        cut = work.text_tokens - work.answer_tokens
        return [Example(row % profile.batch_size, text[:cut], text[cut:]) for row, text in enumerate(ids)]

    def _measure(self, trainer: LocalTrainer, task: PhaseTask, stored: State) -> TrainingResult:
        """Train a client's phase; record its seconds, tokens, losses, memory and trainable parameters."""
        device = self.backbone.numerics.device
        sequences = task.steps * self.profile.batch_size * self.profile.accumulation
        stage = self.stages.setdefault(task.phase.name, Stage(sequences))
        reset_peak_memory(device)
        began = time.perf_counter()
        trained = trainer.run(task, stored)
        stage.seconds.append(time.perf_counter() - began)
        stage.step_seconds.append(trained.step_seconds / task.steps)
        stage.tokens += trained.report.num_tokens + self.backbone.num_prefix_tokens * sequences
        stage.trainable = trained.report.num_trainable
        stage.losses.append(trained.report.losses)
        stage.peak_memory_mb = max(stage.peak_memory_mb, memory_mb(device))
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            stage.used_mb = max(stage.used_mb, round((total - free) / MEGABYTE, 1))
        return trained
