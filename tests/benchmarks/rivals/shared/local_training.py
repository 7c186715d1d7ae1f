"""What all sides share: tiny-llava's LoRA and connector as a torch module, and one client's local training.

The training is the suite's own, so that every simulator's clients take the same steps at the same speed: batches in the
same order, fused AdamW with warm-up and cosine decay, clipping, packed passes over stored features. What differs
between sides is everything around it. Data are read when a client first trains in a process.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache, open_features
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.lora import initial_lora_state
from pilot.bench.rivals.job import KEPT, Job, run_recorded
from pilot.data.record import InstructionRecord
from pilot.federation.assemble import train_settings
from pilot.federation.client import PhaseTask
from pilot.federation.shards import LazyExamples, read_part
from pilot.federation.trainer import LocalTrainer
from pilot.methods.base import select

State = dict[str, Tensor]


class Adapters(nn.Module):
    """The trained tensors of a client as one module; dots in names are bars, since torch allows no dots."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tensors = nn.ParameterDict({name.replace(".", "|"): value.clone() for name, value in state.items()})

    def state(self) -> State:
        """Return a copy of the tensors by name."""
        return {name.replace("|", "."): value.detach().clone() for name, value in self.tensors.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set all tensors by name."""
        for name, value in state.items():
            self.tensors[name.replace(".", "|")].copy_(value)


class LocalTraining:
    """Local training of any client of a job, in this process."""

    def __init__(self, job: Job) -> None:
        self.job, self.spec, self._folder = job, job.spec, Path(job.scenario_dir)
        self.method = self.spec.make_method()
        (self.phase,) = self.method.phases(1)
        self.infos = self.spec.clients(self.method)
        self._examples: dict[int, LazyExamples] = {}

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen model."""
        return load_backbone(self.spec.profile, lean=True)

    @cached_property
    def _trainer(self) -> LocalTrainer:
        settings = train_settings(self.spec)
        return LocalTrainer(self.backbone, self.method, settings, self._features, self._examples)

    @cached_property
    def _features(self) -> FeatureCache:
        return open_features(self._folder / "features")

    @cached_property
    def _records(self) -> dict[int, list[InstructionRecord]]:
        scenario, frame = self.spec.scenario, self.spec.profile.frame
        shards = (read_part(scenario, self._folder, task, "train", frame=frame) for task in scenario.tasks)
        return {client: records for shard in shards for client, records in shard.items()}

    def initial(self) -> State:
        """Return the model that all clients start from."""
        connector = self.method.make_connector(self.phase, self.infos[0], self.backbone.projector(), {})
        own = {name: value.detach() for name, value in connector.named_parameters()}
        return select(own | initial_lora_state(self.backbone.text_adapter, self.spec.seed), self.phase.shared)

    def num_examples(self, client: int) -> int:
        """Return the client's number of training examples, its weight in the mean."""
        return len(self._records[client])

    def train(self, client: int, round_number: int, state: Mapping[str, Tensor]) -> State:
        """Train a client in a round, counted from 1; return its tensors."""
        if client not in self._examples:
            self._examples[client] = LazyExamples(self.backbone, self._features, self._records[client])
        steps = self.spec.profile.steps_of(self.num_examples(client))
        task = PhaseTask(self.infos[client], self.phase, round_number, 0, steps, dict(state))
        return run_recorded(self.job, self._trainer.run, task, {}).update.state


def keep_state(job: Job, round_number: int, state: Mapping[str, Tensor]) -> None:
    """Write the server's state after a round, of the first rounds only."""
    if round_number <= KEPT:
        values = {name: value.detach().clone().contiguous() for name, value in state.items()}
        save_file(values, job.state_file(round_number))
