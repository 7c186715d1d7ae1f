"""One run: scenario, profile, method and seed to a run directory, from the start or from where it stopped."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from pilot.backbone.backbone import Backbone
from pilot.backbone.features import FeatureCache, open_features
from pilot.backbone.paths import TINY_LLAVA
from pilot.config import LearningRates, Profile, Scenario, TaskConfig
from pilot.data.record import read_records, read_table
from pilot.errors import UserError
from pilot.federation.checkpoint import Progress, clean, load_progress, save_progress
from pilot.federation.client import ClientModel, LocalTrainer, TrainSettings, build_client_model
from pilot.federation.driver import Driver, Plan, split_steps
from pilot.federation.ledger import Ledger
from pilot.federation.shards import Example, make_examples
from pilot.federation.timing import Timing
from pilot.federation.transport import LocalTransport
from pilot.io.atomic import read_json, remove, write_json, write_jsonl
from pilot.io.digest import digest_json, sha256_file
from pilot.methods.base import ClientInfo, Method, Phase, State, select
from pilot.methods.registry import make_method
from pilot.provenance import stage_digest

POOLED_TASK = "all"
BACKBONES = {"tiny-llava": TINY_LLAVA}


@dataclass(frozen=True)
class RunSpec:
    """Which run: `learning_rates` overrides the profile's (tuning only)."""

    scenario: Scenario
    profile: Profile
    method: str
    seed: int
    learning_rates: LearningRates | None = None

    def rates(self) -> LearningRates:
        """The learning rates that hold."""
        return self.learning_rates or self.profile.learning_rates_of(self.method)

    def make_method(self) -> Method:
        """The method with the profile's options."""
        return make_method(self.method, self.profile.method_options.get(self.method, {}))

    def clients(self, method: Method) -> list[ClientInfo]:
        """The clients of the run; one for everybody where data are pooled."""
        tasks = tuple(task.name for task in self.scenario.tasks)
        if method.pooled:
            return [ClientInfo(0, POOLED_TASK, tasks, self.seed)]
        return [ClientInfo(k, task.name, tasks, self.seed) for k, task in enumerate(self.scenario.client_tasks)]


def load_backbone(profile: Profile) -> Backbone:
    """The profile's backbone with its LoRA attached; one thread, deterministic kernels.

    Precision `medium` lets oneDNN multiply matrices, which on AVX-512 takes half of MKL's time on AMD processors, in
    full float32 unless the processor has instructions for bfloat16 matrices (AMX). PyTorch's flash attention is slow
    with it at this size; plain attention is not.
    """
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    if profile.backbone not in BACKBONES:
        raise UserError(
            f"profile {profile.name}: field backbone: unknown name {profile.backbone!r}. "
            f"Expected one of: {', '.join(sorted(BACKBONES))}."
        )
    return Backbone(
        BACKBONES[profile.backbone],
        rank=profile.lora.rank,
        alpha=profile.lora.alpha,
        prompt_template=profile.prompt_template,
    )


def read_part(scenario: Scenario, scenario_dir: Path, task: TaskConfig, part: str) -> dict[int, list[Any]]:
    """The records of one part (`train`, `validation`, `local_test`) of a task's clients, by client."""
    table = read_table(scenario_dir / "partition" / "assignment.parquet", ["task", "id", "client", "part"])
    records = {record.id: record for record in read_records(scenario_dir / "data" / task.name / "records.parquet")}
    shards: dict[int, list[Any]] = {client: [] for client in scenario.clients_of(task.name)}
    for row in table.to_pylist():
        if row["task"] == task.name and row["part"] == part:
            if row["client"] not in shards or row["id"] not in records:
                raise UserError(
                    f"{scenario_dir / 'partition'}: client {row['client']} holds {row['id']!r}, which the data or the "
                    f"scenario of task {task.name} no longer have. Partition again: pilot-bench partition."
                )
            shards[row["client"]].append(records[row["id"]])
    return shards


def load_examples(
    scenario: Scenario, scenario_dir: Path, backbone: Backbone, features: FeatureCache, part: str
) -> dict[int, list[Example]]:
    """Tokenised examples of one part by client.

    Raises:
        UserError: a client has none.
    """
    examples = {}
    for task in scenario.tasks:
        for client, records in read_part(scenario, scenario_dir, task, part).items():
            if not records:
                raise UserError(
                    f"{scenario_dir / 'partition'}: client {client} of task {task.name} has no {part} examples. "
                    "Use fewer clients, more data or a larger alpha, and partition again."
                )
            examples[client] = make_examples(backbone, features, records)
    return examples


def train_run(
    spec: RunSpec, scenario_dir: Path, run_dir: Path, resume: bool, progress: Callable[[int, int], None]
) -> None:
    """Train and write the run directory; `manifest.json` comes last. A finished round is never repeated.

    With `resume`, a checkpoint of the same configuration is continued; otherwise the run starts anew.
    """
    method = spec.make_method()
    backbone = load_backbone(spec.profile)
    features = open_features(scenario_dir / "features")
    config = run_config(spec, vars(method), scenario_dir, features.digest)
    remove(run_dir / "manifest.json")
    write_json(run_dir / "config.json", config)
    digest = digest_json(config)
    start = load_progress(run_dir / "checkpoint", digest) if resume else None
    if start is None:
        shutil.rmtree(run_dir / "eval", ignore_errors=True)
    for torn in run_dir.rglob(".*.part"):  # left by a writer that was killed
        remove(torn)
    clean(run_dir / "checkpoint", start.round_number if start else 0)
    timing = Timing(run_dir / "timing.json", resumed=start is not None)
    examples = _pool(load_examples(spec.scenario, scenario_dir, backbone, features, "train"), method)
    driver = _driver(spec, method, backbone, features, examples, start, progress)
    driver.checkpoint = lambda now: _checkpoint(run_dir, digest, now, timing, driver)
    final = driver.run(start)
    write_jsonl(run_dir / "rounds.jsonl", final.history)
    write_json(run_dir / "ledger.json", driver.ledger.to_json())
    timing.write(driver.clock)
    write_manifest(run_dir, config)


def run_config(spec: RunSpec, options: Mapping[str, Any], scenario_dir: Path, features_digest: str) -> dict[str, Any]:
    """`config.json`: everything that the run's bytes depend on."""
    scenario, profile = spec.scenario, spec.profile
    own = profile.only(spec.method).model_copy(update={"learning_rates": {"default": spec.rates()}})
    num_clients = len(scenario.client_tasks)
    return {
        "scenario": scenario.name,
        "profile": profile.name,
        "method": spec.method,
        "seed": spec.seed,
        "reference": spec.method in ("untuned", "majority"),
        "hyperparameters": {
            "learning_rates": spec.rates().model_dump(),
            "warmup_fraction": profile.warmup_fraction,
            "weight_decay": profile.weight_decay,
            "max_grad_norm": profile.max_grad_norm,
            "lora": profile.lora.model_dump(),
            "prompt_template": profile.prompt_template,
            "options": dict(sorted(options.items())),
        },
        "budget": {
            "rounds": profile.rounds,
            "local_steps": profile.local_steps,
            "batch_size": profile.batch_size,
            "num_clients": num_clients,
            "total_steps": profile.rounds * profile.local_steps * num_clients,
        },
        "digests": {
            "data": digest_json(read_json(scenario_dir / "data" / "manifest.json")["digests"]),
            "partition": sha256_file(scenario_dir / "partition" / "assignment.parquet"),
            "backbone": sha256_file(BACKBONES[profile.backbone] / "model.safetensors"),
            "features": features_digest,
            "scenario": digest_json(scenario.model_dump(mode="json")),
            "source": stage_digest("train", spec.method),
        },
        "scenario_config": scenario.model_dump(mode="json"),
        "profile_config": own.model_dump(mode="json"),
        "tasks": [
            {"name": task.name, "kind": task.kind, "clients": list(scenario.clients_of(task.name))}
            for task in scenario.tasks
        ],
    }


def client_models(
    spec: RunSpec, backbone: Backbone, checkpoint: Path
) -> dict[tuple[int, ...], Callable[[], ClientModel]]:
    """The run's models after training: clients that share a model, and how to load it into the backbone.

    Only one model can be loaded at a time, since the LoRA lives in the backbone.
    """
    method = spec.make_method()
    progress = load_progress(checkpoint, None)
    if progress is None:
        raise UserError(f"{checkpoint}: no finished round here. Train the run first.")
    phases = method.phases(spec.profile.rounds)
    phase = phases[-1] if phases else Phase("none", frozenset(), frozenset())
    everyone = tuple(range(len(spec.scenario.client_tasks)))
    infos = spec.clients(method)
    owners = {everyone: infos[0]} if method.single_model else {(info.client,): info for info in infos}

    def loader(info: ClientInfo) -> Callable[[], ClientModel]:
        stored = progress.clients.get(info.client, {})
        payload = method.payload(progress.server, info, phase)
        return lambda: build_client_model(backbone, method, phase, info, stored, payload)

    return {clients: loader(info) for clients, info in owners.items()}


def _pool(examples: Mapping[int, list[Example]], method: Method) -> dict[int, list[Example]]:
    if not method.pooled:
        return dict(examples)
    return {0: [example for client in sorted(examples) for example in examples[client]]}


def _driver(
    spec: RunSpec,
    method: Method,
    backbone: Backbone,
    features: FeatureCache,
    examples: dict[int, list[Example]],
    start: Progress | None,
    progress: Callable[[int, int], None],
) -> Driver:
    profile, rates = spec.profile, spec.rates()
    settings = TrainSettings(
        profile.batch_size, rates.model_dump(), profile.warmup_fraction, profile.weight_decay, profile.max_grad_norm
    )
    clients = spec.clients(method)
    steps = profile.local_steps * (len(spec.scenario.client_tasks) if method.pooled else 1)
    total = sum(
        part for number in range(1, profile.rounds + 1) for _, part in split_steps(method.phases(number), steps)
    ) * len(clients)
    done = [sum(client["steps"] for row in start.history for client in row["clients"]) if start else 0]

    def advance(count: int) -> None:
        done[0] += count
        progress(done[0], total)

    def template(phase: Phase, info: ClientInfo, payload: State) -> State:
        connector = method.make_connector(phase, info, backbone.projector(), payload)
        return select({**dict(connector.named_parameters()), **backbone.text_adapter}, phase.shared)

    plan = Plan(method, clients, {k: len(v) for k, v in examples.items()}, profile.rounds, steps, template)
    size = backbone.num_language_parameters
    ledger = Ledger.from_json(start.ledger, size) if start else Ledger(size)
    trainer = LocalTrainer(backbone, method, settings, features, examples)
    return Driver(plan, LocalTransport(trainer), ledger, advance)


def _checkpoint(run_dir: Path, digest: str, now: Progress, timing: Timing, driver: Driver) -> None:
    save_progress(run_dir / "checkpoint", now, digest)
    write_jsonl(run_dir / "rounds.jsonl", now.history)
    timing.write(driver.clock)


def write_manifest(run_dir: Path, config: Mapping[str, Any]) -> None:
    """List every file that makes the run valid, with its digest; written last."""
    files = [run_dir / name for name in ("config.json", "rounds.jsonl", "ledger.json")]
    files += sorted(path for path in (run_dir / "checkpoint").rglob("*") if path.is_file())
    write_json(
        run_dir / "manifest.json",
        {
            "config_digest": digest_json(dict(config)),
            "files": {path.relative_to(run_dir).as_posix(): sha256_file(path) for path in files},
            "versions": _versions(),
        },
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "numpy", "safetensors")}
