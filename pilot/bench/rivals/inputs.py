"""Scenarios of many clients, made of one scenario's shards: each client's shard is given to more clients."""

from collections.abc import Mapping
from math import ceil, floor
from pathlib import Path
from typing import Any

from pilot.config.federation import FederationConfig
from pilot.config.profile import Profile
from pilot.config.scenario import Scenario
from pilot.data.tables import read_table
from pilot.errors import UserError
from pilot.federation.participation import Participation, schedule
from pilot.io.digest import sha256_file
from pilot.io.sealed import write_sealed

LINKED = ("data", "features")
METHOD, SEED = "fedavg", 0
DECIMALS = 10_000


def repeat_clients(scenario: Scenario, times: int) -> Scenario:
    """Return the scenario with `times` as many clients of every task."""
    tasks = [task.model_copy(update={"num_clients": times * task.num_clients}) for task in scenario.tasks]
    return scenario.model_copy(update={"tasks": tuple(tasks)})


def repeat_shards(scenario: Scenario, scenario_dir: Path, times: int, folder: Path) -> None:
    """Link data and features into `folder`, and write a partition in which every shard has `times` clients.

    The clients of a task's first copy come first, then those of its second copy, and so on; see `repeat_clients`.

    Raises:
        UserError: data, partition or features are missing.
    """
    for name in (*LINKED, "partition"):
        if not (scenario_dir / name).is_dir():
            raise UserError(f"{scenario_dir / name}: missing. Choose a folder with data, partition and features.")
    folder.mkdir(parents=True)
    for name in LINKED:
        (folder / name).symlink_to((scenario_dir / name).resolve())
    (folder / "partition").mkdir()
    path = folder / "partition" / "assignment.parquet"
    _write_repeated(scenario, scenario_dir / "partition" / path.name, times, path)
    write_sealed(path.with_name("heterogeneity.json"), {"assignment": sha256_file(path)})


def _write_repeated(scenario: Scenario, source: Path, times: int, path: Path) -> None:
    import pyarrow
    from pyarrow import compute, parquet

    table, parts = read_table(source, ["task", "id", "client", "part"]), []
    for task in scenario.tasks:
        rows = table.filter(compute.equal(table["task"], task.name))
        first, place = scenario.clients_of(task.name)[0], table.column_names.index("client")
        for copy in range(times):
            moved = first * (times - 1) + copy * task.num_clients
            clients = compute.add(rows["client"], pyarrow.scalar(moved, rows["client"].type))
            parts.append(rows.set_column(place, "client", clients))
    parquet.write_table(pyarrow.concat_tables(parts), path)


def sampled_profile(profile: Profile, num_clients: int, sampled: int, rounds: int) -> Profile:
    """Return the profile for so many rounds of `sampled` clients; the checkpoints of all rounds are kept."""
    share = 1.0 if sampled >= num_clients else floor(DECIMALS * sampled / num_clients) / DECIMALS
    if sampled < num_clients and ceil(share * num_clients) != sampled:
        raise UserError(f"bench rivals: no share of {num_clients} clients is {sampled} of them. Choose other numbers.")
    federation = FederationConfig.model_validate({"participation": {"fraction": share}})
    update = {"rounds": rounds, "evaluate_every": 1, "federation": federation, "forgetting": ()}
    return profile.model_copy(update=update)


def run_config(scenario: Scenario, profile: Profile) -> dict[str, Any]:
    """Return what `RunSpec.from_config` reads, for FedAvg and seed 0."""
    return {
        "scenario_config": scenario.model_dump(mode="json"), "profile_config": profile.model_dump(mode="json"),
        "method": METHOD, "seed": SEED,
    }  # fmt: skip


def draw_schedule(config: Mapping[str, Any], num_clients: int) -> tuple[tuple[int, ...], ...]:
    """Return the clients of each round, as the run itself draws them."""
    profile = Profile.model_validate(config["profile_config"])
    options = Participation(**profile.federation.participation.model_dump())
    return tuple(row.present for row in schedule(options, range(num_clients), profile.rounds, config["seed"]))
