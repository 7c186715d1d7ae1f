"""What an entry may choose, and what it may not: the settings of its profile and scenario, data, weights and test sets.

An entry chooses its method, the method's options and the learning rates (`CHOICES`). Everything else on which training
depends is static: the fields of the profile as this version ships it, the tasks with their clients, and the digests in
`reference.json`, which are those of the reference runs. Features are left out, since processors round differently.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pilot.config.base import Model
from pilot.config.identity import identity
from pilot.config.load import load_profile, load_scenario
from pilot.errors import UserError
from pilot.io.atomic import read_json

CHOICES, STATIC = ("method", "seed", "learning_rates", "options"), ("profile", "tasks", "digests")
"""Fields of a run's identity that are an entry's own, and those that it may not change."""
REFERENCE = Path(__file__).with_name("reference.json")
MAX_TRIALS = 4
"""Tuning trials of every method in the reference tables, and at most of an entry."""


class Reference(Model):
    """Digests of a setting's data, partition, frozen weights and test sets.

    Attributes:
        test: `test_digest` of the evaluation of the last round's models.
    """

    data: str
    partition: str
    backbone: str
    test: str


def reference_of(setting: str) -> Reference:
    """Return the digests of `<profile>/<scenario>`.

    Raises:
        UserError: there are none; the message lists the settings that have some.
    """
    known = read_json(REFERENCE, {})
    if setting not in known:
        raise UserError(f"{setting}: no entries are accepted for it. Expected one of {', '.join(sorted(known))}.")
    return Reference.model_validate(known[setting])


def static_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the static fields of a run's `config.json` that differ from those of this version, with both values.

    Raises:
        UserError: the profile or the scenario is not one of this version's, or has no reference.
    """
    profile, scenario = load_profile(config["profile"]), load_scenario(config["scenario"])
    reference = reference_of(f"{config['profile']}/{config['scenario']}")
    own, shipped = identity(config), profile.for_method(config["method"]).model_dump(mode="json")
    expected = {name: shipped.get(name) for name in own["profile"]}
    yield from _differences("profile_config", own["profile"], expected)
    tasks = [{"name": t.name, "kind": t.kind, "clients": list(scenario.clients_of(t.name))} for t in scenario.tasks]
    given = [{name: task.get(name) for name in ("name", "kind", "clients")} for task in own["tasks"]]
    yield from _differences("tasks", {"tasks": given}, {"tasks": tasks})
    digests = reference.model_dump(include={"data", "partition", "backbone"})
    yield from _differences("digests", {name: own["digests"].get(name) for name in digests}, digests)
    budget = config["budget"]
    steps = budget["num_clients"] * budget["rounds"] * (profile.local_steps or 0)
    rule = {
        "rounds": profile.rounds, "batch_size": profile.batch_size, "local_steps": profile.local_steps,
        "num_clients": len(scenario.client_tasks), "total_steps": steps,
    }  # fmt: skip
    yield from _differences("budget", budget, rule)


def steps_problem(config: Mapping[str, Any], rounds: list[dict[str, Any]]) -> str:
    """Return how many more optimiser steps a run's `rounds.jsonl` has than its budget; empty if not more."""
    taken = sum(client["steps"] for row in rounds for client in row["clients"])
    allowed = config["budget"]["total_steps"]
    return "" if taken <= allowed else f"rounds.jsonl: {taken} optimiser steps, expected at most {allowed}"


def _differences(field: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(given.keys() | expected.keys()):
        if given.get(name) != expected.get(name):
            where = field if field == name else f"{field}.{name}"
            yield f"{where}: expected {_shown(expected.get(name))}, got {_shown(given.get(name))}"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
