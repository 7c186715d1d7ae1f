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
PLANTED_FIELDS = ("canaries", "missing")
"""Fields of a scenario that change training records when they are read; what they draw depends on the split's seed."""


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Select from a `config.json` what the run's training depends on.

    From the scenario, these are the tasks with their clients and, where they are set, `PLANTED_FIELDS`: everything else
    affects training through data, partition and features, whose digests are included.
    """
    hyperparameters, profile, scenario = config["hyperparameters"], config["profile_config"], config["scenario_config"]
    planted = {name: scenario[name] for name in PLANTED_FIELDS if name in scenario}
    return {
        "method": config["method"],
        "seed": config["seed"],
        "learning_rates": hyperparameters["learning_rates"],
        "options": hyperparameters["options"],
        "profile": {name: value for name, value in profile.items() if name not in IGNORED_PROFILE_FIELDS},
        "tasks": config["tasks"],
        "digests": {name: value for name, value in config["digests"].items() if name != "scenario"},
    } | ({"scenario": planted | {"partition_seed": scenario["partition_seed"]}} if planted else {})


def identity_digest(config: Mapping[str, Any]) -> str:
    """Return the digest of `identity`, by which checkpoints are matched to runs."""
    return digest_json(identity(config))
