"""Specification of a run (scenario, profile, method and seed), and the files that describe the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pilot.backbone.feature_files import read_index
from pilot.backbone.sources import backbone_digest
from pilot.config.files import restored
from pilot.config.identity import identity_digest
from pilot.config.model import LearningRates
from pilot.config.profile import Profile
from pilot.config.scenario import NOT_IN_DATA, Scenario
from pilot.config.variant import base_name
from pilot.data.conditions import seen_images_file
from pilot.data.manifest import check_data
from pilot.errors import UserError
from pilot.io.atomic import damaged, read_json, write_json
from pilot.io.digest import digest_json, sha256_file
from pilot.io.sealed import read_sealed
from pilot.io.verified import check_digest
from pilot.methods.base import ClientInfo, Method
from pilot.provenance import package_versions, stage_digest
from pilot.registry import make_method

POOLED_TASK = "all"


@dataclass(frozen=True)
class RunSpec:
    """Specification of a run; `learning_rates` and `options` override the profile's (tuning only)."""

    scenario: Scenario
    profile: Profile
    method: str
    seed: int
    learning_rates: LearningRates | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str = "config.json") -> "RunSpec":
        """Restore the specification from a `config.json`, whose profile holds the run's learning rates.

        Raises:
            UserError: as `restored`; the message begins with `where`.
        """
        return cls(
            restored(Scenario, f"{where}: field scenario_config", config.get("scenario_config")),
            restored(Profile, f"{where}: field profile_config", config.get("profile_config")),
            config["method"],
            config["seed"],
        )

    def rates(self) -> LearningRates:
        """Return the effective learning rates."""
        return self.learning_rates or self.profile.learning_rates_of(self.method)

    def make_method(self) -> Method:
        """Create the method with the options of the profile and the variant, overridden by those of the run."""
        return configured_method(self.profile, self.method, self.options)

    def clients(self, method: Method) -> list[ClientInfo]:
        """List the clients of the run; a single client if the data are pooled."""
        tasks = tuple(task.name for task in self.scenario.tasks)
        if method.pooled:
            return [ClientInfo(0, POOLED_TASK, tasks, self.seed)]
        return [ClientInfo(k, task.name, tasks, self.seed) for k, task in enumerate(self.scenario.client_tasks)]


def configured_method(profile: Profile, method: str, options: Mapping[str, Any] = MappingProxyType({})) -> Method:
    """Create a method, or a variant of one, with the options of a profile, overridden by `options`.

    Raises:
        UserError: an unknown method, variant or option, an invalid value, also for the profile's rounds, or a method
            that trains the whole LLM with rounded weights, in which its steps would be lost.
    """
    made = make_method(base_name(method), {**profile.options_of(method), **options})
    try:
        made = made.for_rounds(profile.rounds)
    except ValueError as error:
        raise UserError(f"method {method}, profile {profile.name}: option {error}.") from error
    if made.trains_language and profile.precision != "float32":
        raise UserError(
            f"profile {profile.name}: field precision: method {method} trains the whole LLM, for which weights must "
            f"be float32, got {profile.precision}. Set precision: float32, or choose a method that trains LoRA."
        )
    return made


def scenario_digests(scenario_dir: Path) -> dict[str, str]:
    """Check the data and the partition that a scenario's runs read; return their digests and that of the features.

    The shards of the features are checked when they are opened (`open_features`).

    Raises:
        UserError: a file is missing, or is not the one that its stage wrote.
    """
    partition = scenario_dir / "partition" / "assignment.parquet"
    data = check_data(scenario_dir / "data")
    made = read_sealed(partition.with_name("heterogeneity.json"), {"assignment": str})
    recorded = {name: str(made[name]) for name in ("assignment", "images") if name in made}
    check_digest(partition, recorded["assignment"])
    if "images" in recorded:
        check_digest(seen_images_file(scenario_dir), recorded["images"])
    return {
        "data": digest_json(data),
        "partition": digest_json(recorded) if "images" in recorded else recorded["assignment"],
        "features": read_index(scenario_dir / "features")["digest"],
    }


def run_config(spec: RunSpec, options: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of `config.json`: all that the run's bytes depend on; `digests`: see `scenario_digests`."""
    scenario, profile = spec.scenario, spec.profile
    own = profile.for_method(spec.method).model_copy(update={"learning_rates": {"default": spec.rates()}})
    return {
        "scenario": scenario.name,
        "profile": profile.name,
        "method": spec.method,
        "seed": spec.seed,
        "reference": not spec.make_method().phases(1),
        "one_model": spec.make_method().single_model,
        "hyperparameters": {
            "learning_rates": spec.rates().model_dump(),
            "warmup_fraction": profile.warmup_fraction,
            "weight_decay": profile.weight_decay,
            "max_grad_norm": profile.max_grad_norm,
            "lora": profile.lora.model_dump(),
            "prompt_template": profile.prompt_template,
            "options": dict(sorted(options.items())),
        },
        "budget": _budget(profile, len(scenario.client_tasks)),
        "digests": {
            **digests,
            "backbone": backbone_digest(profile),
            "scenario": scenario_identity(scenario),
            "source": stage_digest("train", spec.method),
        },
        "scenario_config": scenario.model_dump(mode="json"),
        "profile_config": own.model_dump(mode="json"),
        "tasks": [
            {"name": task.name, "kind": task.kind, "clients": list(scenario.clients_of(task.name))}
            | ({"frame": profile.frame} if task.kind == "ground" and profile.frame != "original" else {})
            for task in scenario.tasks
        ],
    }


def run_digest(spec: RunSpec, digests: Mapping[str, str]) -> str:
    """Compute the digest of the run's identity: all that a client's training depends on, except the client's state.

    `digests` are of its data. Those of the features alone are not enough: another partition of the same images has the
    same features.
    """
    return identity_digest(run_config(spec, vars(spec.make_method()), digests))


def scenario_identity(scenario: Scenario) -> str:
    """Compute the digest of a scenario without what no client's data and training depend on."""
    return digest_json(scenario.model_dump(mode="json", exclude=set(NOT_IN_DATA)))


def _budget(profile: Profile, num_clients: int) -> dict[str, Any]:
    """Return the budget that runs must share to be compared.

    With epochs, the partition determines the steps; with `budget: flops`, the method does (see `profile_config`).
    """
    common = {
        "rounds": profile.rounds, "batch_size": profile.batch_size * profile.accumulation, "num_clients": num_clients,
    }  # fmt: skip
    if profile.budget == "flops":
        return common | {"kind": "flops"}
    if profile.local_steps is None:
        return common | {"local_epochs": profile.local_epochs}
    total = profile.rounds * profile.local_steps * num_clients
    return common | {"local_steps": profile.local_steps, "total_steps": total}


def write_manifest(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Write `manifest.json`, which lists the run's files with their digests and makes the run valid; call this last."""
    names = ("config.json", "rounds.jsonl", "ledger.json", "participation.json", "privacy.json")
    files = [run_dir / name for name in names if (run_dir / name).is_file()]
    files += sorted(path for path in (run_dir / "checkpoint").rglob("*") if path.is_file())
    write_json(
        run_dir / "manifest.json",
        {
            "config_digest": digest_json(dict(config)),
            "files": {path.relative_to(run_dir).as_posix(): sha256_file(path) for path in files},
            "versions": package_versions(),
        },
    )


def finished_config(run_dir: Path) -> dict[str, Any]:
    """Check the files that a finished run's manifest lists, and return the run's `config.json`.

    Of each round, only the seal (`complete.json`) is checked here; the rest is checked by `load_progress`.

    Raises:
        UserError: the run is not finished, or a file is missing or altered.
    """
    path = run_dir / "manifest.json"
    if not path.is_file():
        raise UserError(f"{run_dir}: not a finished run (manifest.json is missing). Train it first.")
    manifest = read_json(path, {"config_digest": str, "files": dict})
    if "config.json" not in manifest["files"]:
        raise damaged(path, "field files: config.json is not listed")
    for name, digest in manifest["files"].items():
        if not name.startswith("checkpoint/") or name.endswith("/complete.json"):
            check_digest(run_dir / name, digest)
    config: dict[str, Any] = read_json(run_dir / "config.json", {"method": str, "seed": int, "digests": dict})
    return config
