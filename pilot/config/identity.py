"""What of a run's `config.json` its training depends on.

Scenario and profile contain more than training reads: a title, the scenario's other methods and seeds, the batch size
of generation. None of that decides whether a checkpoint may be continued; `identity` does.
"""

from collections.abc import Mapping
from typing import Any

from pilot.io.digest import digest_json

IGNORED_PROFILE_FIELDS = frozenset({
    "name", "generation_batch", "checkpoint_minutes", "forgetting", "tuning_seed", "tuning_grid", "tuning_grids",
    # Covered by the digest of the weights, and by the effective learning rates and options:
    "backbone_path", "revision", "architecture", "learning_rates", "method_options",
})  # fmt: skip
"""Fields of a profile that do not affect training, or that the identity holds under other names."""


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Select from a `config.json` what the run's training depends on.

    From the scenario, these are the tasks with their clients: everything else affects training through data, partition
    and features, whose digests are included.
    """
    hyperparameters, profile = config["hyperparameters"], config["profile_config"]
    return {
        "method": config["method"],
        "seed": config["seed"],
        "learning_rates": hyperparameters["learning_rates"],
        "options": hyperparameters["options"],
        "profile": {name: value for name, value in profile.items() if name not in IGNORED_PROFILE_FIELDS},
        "tasks": config["tasks"],
        "digests": {name: value for name, value in config["digests"].items() if name != "scenario"},
    }


def identity_digest(config: Mapping[str, Any]) -> str:
    """Return the digest of `identity`, by which checkpoints are matched to runs."""
    return digest_json(identity(config))
