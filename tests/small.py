"""A scenario small enough to be trained in a second, with its data, partition and features."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache, open_features
from pilot.backbone.features import compute_features
from pilot.backbone.from_profile import load_backbone
from pilot.config.load import load_profile, load_scenario
from pilot.config.profile import Profile
from pilot.config.scenario import Scenario
from pilot.data.build import build_data
from pilot.data.conditions import scenario_images
from pilot.data.partition import partition_data
from pilot.federation.shards import Example, load_examples
from pilot.federation.spec import RunSpec
from pilot.federation.trainer import LocalTrainer, TrainSettings
from pilot.federation.training import train_run

SCENARIO = """\
name: small
title: Two clients per task
data_seed: 3
partition_seed: 4
methods: [pilot, fedavg]
seeds: [0]
validation_fraction: 0.1
local_test_fraction: 0.1
min_client_examples: 5
tasks:
  - {name: scene-vqa, kind: vqa, source: scene-vqa, num_train: 40, num_test: 8, num_clients: 2,
     partition: {kind: iid}, lm_eval_task: pilot_scene_vqa}
  - {name: scene-caption, kind: caption, source: scene-caption, num_train: 36, num_test: 8, num_clients: 2,
     partition: {kind: iid}, lm_eval_task: pilot_scene_caption}
  - {name: scene-ground, kind: ground, source: scene-ground, num_train: 44, num_test: 8, num_clients: 2,
     partition: {kind: iid}, lm_eval_task: pilot_scene_ground}
"""
PROFILE = """\
name: tiny
backbone: tiny-llava
rounds: 2
local_steps: 3
batch_size: 2
warmup_fraction: 0.03
weight_decay: 0.0
max_grad_norm: 1.0
lora: {rank: 8, alpha: 16}
learning_rates: {default: {text_adapter: 0.003, connector: 0.003}}
prompt_template: "USER: <image>\\n{instruction} ASSISTANT:"
"""


def quiet(done: int, total: int) -> None:
    """No progress shown."""


@dataclass(frozen=True)
class Small:
    """Files of the small scenario below `root`; nobody may change them.

    Attributes:
        clients_per_task: of its three tasks.
        shared: where processes of one test run find the runs that others of them have trained.
    """

    root: Path
    profile_text: str = PROFILE
    clients_per_task: int = 2
    shared: Path | None = None

    @property
    def results(self) -> Path:
        """The folder of all results."""
        return self.root / "results"

    @property
    def folder(self) -> Path:
        """The scenario's folder in the results."""
        return self.results / self.profile.name / "small"

    @property
    def scenario_file(self) -> Path:
        """The scenario's YAML file."""
        return self.root / "small.yaml"

    @property
    def profile_file(self) -> Path:
        """The profile's YAML file."""
        return self.root / "tiny.yaml"

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario."""
        return load_scenario(self.scenario_file)

    @cached_property
    def profile(self) -> Profile:
        """The profile."""
        return load_profile(self.profile_file)

    @cached_property
    def backbone(self) -> Backbone:
        """The shipped backbone, its LoRA as the last user left it."""
        return load_backbone(self.profile)

    @cached_property
    def features(self) -> FeatureCache:
        """Vision features of all images."""
        return open_features(self.folder / "features")

    @cached_property
    def examples(self) -> dict[int, list[Example]]:
        """Training examples of every client."""
        return self._examples("train")

    @cached_property
    def validation(self) -> dict[int, list[Example]]:
        """Validation examples of every client."""
        return self._examples("validation")

    def _examples(self, part: str) -> dict[int, list[Example]]:
        frame = self.profile.frame
        return load_examples(self.scenario, self.folder, self.backbone, self.features, part, frame=frame)

    def build(self) -> None:
        """Make everything that training reads."""
        self.scenario_file.write_text(SCENARIO.replace("num_clients: 2", f"num_clients: {self.clients_per_task}"))
        self.profile_file.write_text(self.profile_text)
        build_data(self.scenario, self.folder, lambda task, done, total: None)
        partition_data(self.scenario, self.folder)
        self.compute_features()

    def compute_features(self) -> None:
        """Compute the features of every image that a run may see."""
        with scenario_images(self.scenario, self.folder) as images:
            compute_features(self.backbone, self.profile, images, self.folder / "features", quiet)

    def spec(self, method: str, seed: int = 0) -> RunSpec:
        """A run of the small scenario."""
        return RunSpec(self.scenario, self.profile, method, seed)

    def run(self, method: str, seed: int = 0) -> Path:
        """A finished run, trained when a process first asks for it; nobody may change it."""
        folder = self.folder / "runs" / method / f"seed{seed}"
        if not (folder / "manifest.json").is_file():
            trained = (self.shared or self.root / "trained") / method / f"seed{seed}"
            trained.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{trained}.lock"):
                if not (trained / "manifest.json").is_file():
                    train_run(self.spec(method, seed), self.folder, trained, False, quiet)
            shutil.copytree(trained, folder)
        return folder

    def train(
        self, target: Path, method: str, seed: int = 0, progress: Callable[[int, int], None] = quiet
    ) -> dict[str, bytes]:
        """Train in `target`, or go on there; returns its files as `contents` does."""
        train_run(self.spec(method, seed), self.folder, target, True, progress)
        return contents(target)

    def trainer(self, method: str) -> LocalTrainer:
        """A trainer of the clients, without driver or files."""
        rates = self.profile.learning_rates_of(method)
        settings = TrainSettings(4, rates, 0.03, 0.0, 1.0)
        made = self.spec(method).make_method()
        return LocalTrainer(self.backbone, made, settings, self.features, self.examples, validation=self.validation)


def contents(run_dir: Path) -> dict[str, bytes]:
    """Every file of a run that must not differ between reruns, by relative path."""
    files = [path for path in sorted(run_dir.rglob("*")) if path.is_file() and "eval" not in path.parts]
    return {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in files if path.name != "timing.json"}
