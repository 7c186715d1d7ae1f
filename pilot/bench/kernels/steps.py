"""Single local training steps of ours, as in `LocalTrainer`."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache, open_features
from pilot.backbone.from_profile import load_backbone
from pilot.config.model import Frame
from pilot.config.scenario import Scenario
from pilot.data.record import InstructionRecord
from pilot.federation.client import PhaseTask, build_client_model
from pilot.federation.phase_run import PhaseRun
from pilot.federation.recorder import Recorder
from pilot.federation.shards import Example, collate, make_examples, read_part
from pilot.federation.spec import RunSpec
from pilot.federation.trainer import LocalTrainer, TrainSettings
from pilot.io.seeding import seed_for
from pilot.methods.base import Phase, State

NOISE = 0.02


@dataclass(frozen=True)
class Stream:
    """Training examples for the batches of a call, and the vision features of their images.

    Attributes:
        batches: one batch per step, from the first client of each task in turn.
        features: vision features of all images.
    """

    batches: list[list[InstructionRecord]]
    features: FeatureCache


def read_stream(scenario: Scenario, scenario_dir: Path, batch_size: int, num_steps: int, frame: Frame) -> Stream:
    """Draw `num_steps` batches with replacement from the training examples of the tasks' first clients.

    Raises:
        UserError: data, partition or features are missing.
    """
    shards = []
    for task in scenario.tasks:
        clients = read_part(scenario, scenario_dir, task, "train", frame=frame, images=True)
        shards.append(clients[min(clients)])
    generator = torch.Generator().manual_seed(seed_for("bench train-step"))
    batches = []
    for step in range(num_steps):
        shard = shards[step % len(shards)]
        batches.append([shard[i] for i in torch.randint(len(shard), (batch_size,), generator=generator).tolist()])
    return Stream(batches, open_features(scenario_dir / "features"))


class OurSteps:
    """A client's model and optimiser for one phase, with a separate backbone.

    Args:
        spec: specification of the run.
        phase: phase of the run's method.
        stream: batches to train on.
        num_steps: length of the learning rate schedule.
    """

    def __init__(self, spec: RunSpec, phase: Phase, stream: Stream, num_steps: int) -> None:
        profile, method, self.stream = spec.profile, spec.make_method(), stream
        self.backbone: Backbone = load_backbone(profile)
        self.rates = spec.rates()
        settings = TrainSettings(
            profile.batch_size, self.rates, profile.warmup_fraction, profile.weight_decay, profile.max_grad_norm
        )
        info = spec.clients(method)[0]
        model = build_client_model(self.backbone, method, phase, info, {}, {})
        model.load(_add_noise(model.state()))
        self.run = PhaseRun(self.backbone, method, PhaseTask(info, phase, 1, 0, num_steps, {}), {}, model)
        self.optimiser = LocalTrainer(self.backbone, method, settings, stream.features, {}).optimiser(self.run)
        self.examples: list[list[Example]] = [
            make_examples(self.backbone, stream.features, records) for records in stream.batches
        ]
        self.done, self.num_steps = 0, num_steps

    def call(self) -> list[float]:
        """Take one step on each batch; return the losses before the updates."""
        self.run.recorder = Recorder()
        for examples in self.examples:
            self.optimiser.begin(self.done % self.num_steps)
            batch = collate(examples, self.stream.features, self.backbone.eos_id)
            self.run.compute_gradients([batch])
            self.optimiser.finish()
            self.done += 1
        return [float(value) for value in self.run.recorder.losses["total"]]


def _add_noise(state: State) -> State:
    """Add normal noise to every tensor: `NOISE` times its standard deviation, or times 1 / sqrt(width) if all zero.

    At the initial values some gradients are zero except for rounding, which AdamW would turn into full steps.
    """
    result = {}
    for name, value in state.items():
        generator = torch.Generator().manual_seed(seed_for("bench train-step", name))
        size = float(value.std()) if value.any() else value.shape[-1] ** -0.5
        result[name] = value + NOISE * size * torch.randn(value.shape, generator=generator)
    return result
