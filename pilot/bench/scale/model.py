"""`pilot-bench bench llava-random`: memory and speed of a Pilot round of both stages on random weights of any size.

Three clients, one per task, with synthetic records: noise images that go through the vision tower, and random ids for
prompts and answers, so that sequences have the requested length. Everything else is as in a run: the driver, the
clients' trainer, the guard, Pilot's aggregation. Peak memory includes loading.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.lora import initial_lora_state
from pilot.backbone.sources import RANDOM
from pilot.config.load import load_profile
from pilot.config.model import RandomModel
from pilot.config.profile import Profile
from pilot.errors import UserError
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
from pilot.methods.pilot import Pilot
from pilot.provenance import package_versions

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
    """Speed of one stage over all clients; tokens are those of the LLM: image, prompt and answer."""

    seconds: float
    samples_per_second: float
    tokens_per_second: float
    trainable_parameters: int


def bench_model(profile: Profile, work: Workload, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Load the model, compute image features, train one round; return the report that `--json` prints.

    Raises:
        UserError: the profile requires a GPU and there is none.
    """
    began = time.perf_counter()
    backbone = load_backbone(profile)
    device = backbone.numerics.device
    loaded = time.perf_counter() - began
    features, pictures_per_second = _features(backbone, profile)
    after_features = _memory_mb(device)
    stages = _train(backbone, profile, work, features, progress)
    config = profile.model_dump(mode="json")
    return {
        "architecture": profile.architecture.model_dump() if profile.architecture else None,
        "parameters": sum(parameter.numel() for parameter in backbone.model.parameters()),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "settings": {name: config.get(name, getattr(profile, name)) for name in (
            "precision", "attention", "gradient_checkpointing", "batch_size", "accumulation", "lora",
        )},
        "sequence_length": backbone.num_prefix_tokens + backbone.feature_shape[0] + work.text_tokens,
        "workload": asdict(work),
        "load_seconds": round(loaded, 2),
        "pictures_per_second": round(pictures_per_second, 2),
        "memory_mb_after_features": after_features,
        "peak_memory_mb": _memory_mb(device),
        "memory_is": "torch.cuda.max_memory_allocated" if device.type == "cuda" else "largest resident set (ru_maxrss)",
        "stages": {name: asdict(stage) for name, stage in stages.items()},
        "versions": package_versions(),
    }  # fmt: skip


def as_text(report: dict[str, Any]) -> str:
    """Format the report as text."""
    lines = [
        f"{report['parameters'] / 1e6:.1f} M parameters on {report['device']}, sequences of "
        f"{report['sequence_length']} tokens, batch {report['settings']['batch_size']} x "
        f"{report['settings']['accumulation']}, {report['settings']['precision']}",
        f"peak memory {report['peak_memory_mb']:.0f} MB ({report['memory_is']})",
        f"vision tower {report['pictures_per_second']:.2f} images/s",
    ]
    lines += [
        f"{name}: {stage['samples_per_second']:.2f} samples/s, {stage['tokens_per_second']:.0f} tokens/s"
        for name, stage in report["stages"].items()
    ]
    return "\n".join(lines)


def _features(backbone: Backbone, profile: Profile) -> tuple[FeatureCache, float]:
    """Compute the features of one batch of noise images; return them, in memory, and images per second."""
    side = backbone.model.config.vision_config.image_size
    source = generator("bench llava-random", "pictures")
    pixels = source.integers(0, 256, (profile.batch_size, side, side, 3), dtype=np.uint8)
    began = time.perf_counter()
    values = backbone.image_features([Image.fromarray(picture) for picture in pixels]).float()
    seconds = time.perf_counter() - began
    return FeatureCache([values.numpy()], "float32", {}, ""), len(pixels) / seconds


def _examples(backbone: Backbone, profile: Profile, work: Workload, client: int) -> list[Example]:
    source = generator("bench llava-random", "ids", client)
    count = profile.batch_size * profile.accumulation
    ids = source.integers(4, len(backbone.tokenizer), (count, work.text_tokens)).tolist()
    cut = work.text_tokens - work.answer_tokens
    return [Example(row % profile.batch_size, text[:cut], text[cut:]) for row, text in enumerate(ids)]


@dataclass
class _Meter:
    """A trainer that records seconds, tokens and trainable parameters by phase."""

    trainer: LocalTrainer
    num_prefix_tokens: int
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    trainable: dict[str, int] = field(default_factory=dict)

    def train(self, task: PhaseTask, stored: State) -> TrainingResult:
        """Run the trainer on a phase and record its seconds, tokens and trainable parameters."""
        began, name = time.perf_counter(), task.phase.name
        trained = self.trainer.run(task, stored)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
        settings = self.trainer.settings
        prefix = self.num_prefix_tokens * task.steps * settings.batch_size * settings.accumulation
        self.tokens[name] = self.tokens.get(name, 0) + trained.report.num_tokens + prefix
        self.trainable[name] = trained.report.num_trainable
        return trained

    def report(self, samples: int) -> dict[str, StageReport]:
        """Report every phase; each trained on `samples` samples."""
        return {
            name: StageReport(
                round(spent, 4), round(samples / spent, 3), round(self.tokens[name] / spent, 1), self.trainable[name]
            )
            for name, spent in self.seconds.items()
        }


def _train(
    backbone: Backbone, profile: Profile, work: Workload, features: FeatureCache, progress: Callable[[int, int], None]
) -> dict[str, StageReport]:
    """Run round 1 of Pilot with one client per task; the reported seconds are those of local training."""
    method = Pilot()
    infos = [ClientInfo(client, task, TASKS, 0) for client, task in enumerate(TASKS)]
    examples = {info.client: _examples(backbone, profile, work, info.client) for info in infos}
    settings = TrainSettings(
        profile.batch_size, profile.learning_rates_of(method.name), profile.warmup_fraction, profile.weight_decay,
        profile.max_grad_norm, profile.accumulation,
    )  # fmt: skip
    meter = _Meter(LocalTrainer(backbone, method, settings, features, examples), backbone.num_prefix_tokens)
    counts = {client: len(rows) for client, rows in examples.items()}
    done, total = itertools.count(1), 2 * len(infos)

    def template(phase: Phase, info: ClientInfo, payload: State) -> State:
        connector = method.make_connector(phase, info, backbone.projector(), payload)
        own = {name: value.detach() for name, value in connector.named_parameters()}
        return select(own | initial_lora_state(backbone.text_adapter, 0), phase.shared)

    rounds = schedule(Participation(), list(counts), 1, 0)
    plan = Plan(method, infos, counts, 1, dict.fromkeys(counts, 2 * work.steps), template, rounds, quorum=len(infos))
    with tempfile.TemporaryDirectory() as folder:
        transport = LocalTransport(lambda client: Participant(meter.train, ClientStore(Path(folder) / str(client))))
        driver = Driver(plan, transport, Ledger(backbone.num_language_parameters))
        driver.progress = lambda steps: progress(next(done), total)
        final = driver.run(None)
    assert not any(row["excluded"] or row["skipped"] for row in final.history), "every update is aggregated"
    return meter.report(work.steps * profile.batch_size * profile.accumulation * len(infos))


def _memory_mb(device: torch.device) -> float:
    """Return the peak memory so far: PyTorch's allocations on a GPU, or the process's resident set."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / MEGABYTE, 1)
    return peak_memory_mb()


def resize_profile(profile: Profile, changes: dict[str, Any]) -> Profile:
    """Return the profile with changed fields, of the profile or of its architecture; None leaves a field unchanged.

    Raises:
        UserError: the profile's backbone is not `llava-random`, or a value is invalid.
    """
    if profile.architecture is None:
        raise UserError(f"profile {profile.name}: field backbone: expected llava-random, got {profile.backbone}.")
    given = {name: value for name, value in changes.items() if value is not None}
    inside = {name: given.pop(name) for name in list(given) if name in RandomModel.model_fields}
    values = profile.model_dump() | {"architecture": profile.architecture.model_dump() | inside}
    try:
        return Profile.model_validate(values | given)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"bench llava-random: {first['loc']}: {first['msg']}. Correct this option.") from error


def full_size_profile(profile: Profile) -> Profile:
    """Return profile `llava` with random weights of LLaVA-1.5-7B's size, made on the device, with `profile`'s name."""
    llava = load_profile("llava")
    changes = {"name": profile.name, "backbone": RANDOM, "architecture": RandomModel(materialise=False)}
    return llava.model_copy(update=changes)
