"""Runs on a deployment: what is refused before anything starts, and private states brought together."""

import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pilot.cli.deploy import deploy_app
from pilot.deployment import training
from pilot.deployment.training import collect, flower_config, train_deployed
from pilot.errors import UserError
from pilot.federation.checkpoint import Progress, save_progress
from pilot.federation.flower.server import RunOptions
from pilot.federation.store import ClientStore, Version
from pilot.io.lock import locked
from tests.small import Small

ROOT = Path(__file__).resolve().parents[2]


def request(small: Small, method: str) -> RunOptions:
    """A run of the small scenario."""
    return RunOptions(
        scenario=str(small.scenario_file), profile=str(small.profile_file), method=method, seed=0,
        results=str(small.results),
    )  # fmt: skip


@pytest.mark.parametrize(("method", "nodes", "clients"), [("fedavg", 9, 6), ("pilot", 1, 6), ("central", 6, 1)])
def test_every_client_needs_a_node_of_its_own(small: Small, method: str, nodes: int, clients: int) -> None:
    with pytest.raises(UserError, match=rf"--nodes {nodes}: {method} .*has {clients} clients.*--nodes {clients}\."):
        train_deployed(request(small, method), nodes, print)
    assert not (small.folder / "deployment").exists()


def test_a_folder_in_use_or_with_another_run_is_refused_before_anything_starts(small: Small, tmp_path: Path) -> None:
    """The small scenario in a folder of its own, with one round of a run whose configuration is lost."""
    folder, asked = tmp_path / "tiny/small", request(small, "fedavg").model_copy(update={"results": str(tmp_path)})
    for name in ("data", "partition", "features"):
        shutil.copytree(small.folder / name, folder / name)
    with locked(folder / "runs/fedavg/seed0"), pytest.raises(UserError, match="fedavg/seed0: in use by process"):
        train_deployed(asked, 6, print)
    save_progress(folder / "runs/fedavg/seed0/checkpoint", Progress(1), "of something else")
    with pytest.raises(
        UserError, match=r"fedavg/seed0: contains a run .*config\.json is missing or damaged.*--no-resume"
    ):
        train_deployed(asked, 6, print)
    assert not (folder / "deployment").exists()


def test_majority_is_not_deployed(small: Small) -> None:
    with pytest.raises(UserError, match="--method majority: this method has no model to train"):
        train_deployed(request(small, "majority"), 6, print)


def test_paths_of_the_run_configuration_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    options = RunOptions(
        scenario="mine.yaml", profile="embedded", method="pilot", seed=2, results="results", nodes="nodes", resume=False
    )
    assert flower_config(options) == {
        "scenario": str(tmp_path / "mine.yaml"), "profile": "embedded", "method": "pilot", "seed": 2,
        "results": str(tmp_path / "results"), "nodes": str(tmp_path / "nodes"), "resume": False, "window": 16,
        "patience": 600.0, "limit": 0.0,
    }  # fmt: skip


def app(folder: Path, *arguments: str) -> dict[str, Any]:
    """The run configuration that `deploy app` writes."""
    result = CliRunner().invoke(deploy_app, ["app", str(folder), *arguments])
    if result.exception:
        raise result.exception
    config: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    return config


def test_how_long_clients_are_waited_for_is_in_the_app(tmp_path: Path) -> None:
    run = ("--scenario", "smoke", "--method", "pilot", "--profile", "smoke")
    waits = ("--patience", "5", "--limit", "7.5", "--window", "3")
    written = app(tmp_path, *run, *waits)
    assert RunOptions.model_validate(written) == RunOptions(
        scenario="smoke", profile="smoke", method="pilot", seed=0, results=str(Path("results").resolve()),
        patience=5.0, limit=7.5, window=3,
    )  # fmt: skip
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert declared.keys() == RunOptions.model_fields.keys() == written.keys()
    defaults = app(tmp_path, *run)
    assert {name: declared[name] for name in ("patience", "limit", "window", "nodes", "resume", "seed")}.items() <= (
        defaults.items()
    )


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (("smok", "smoke", "pilot"), "scenario: unknown name 'smok'. Did you mean 'smoke'"),
        (("smoke", "smok", "pilot"), "profile: unknown name 'smok'"),
        (("smoke", "smoke", "fedavgg"), "--method: unknown name 'fedavgg'. Did you mean 'fedavg'"),
        (("smoke", "smoke", "majority"), "--method majority: this method has no model to train"),
        (("mine.yaml", "smoke", "pilot"), "mine.yaml: cannot be read"),
        (("smoke", "smoke", "pilot", "--patience", "nan"), "command line: field patience: "),
    ],
)
def test_names_are_checked_before_anything_is_written(tmp_path: Path, run: tuple[str, ...], message: str) -> None:
    options = [word for pair in zip(("--scenario", "--profile", "--method"), run[:3], strict=True) for word in pair]
    with pytest.raises(UserError, match=message):
        app(tmp_path, *options, *run[3:])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("given", "window"), [((), len(os.sched_getaffinity(0))), (("--window", "3"), 3)])
def test_as_many_clients_as_cores_work_at_once_on_one_machine(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], window: int
) -> None:
    asked: list[RunOptions] = []
    monkeypatch.setattr(training, "train_deployed", lambda options, nodes, show: asked.append(options))
    assert CliRunner().invoke(deploy_app, ["local", "--nodes", "6", *given]).exit_code == 0
    assert [options.window for options in asked] == [window]


def test_a_file_that_only_the_server_has_is_not_looked_for(tmp_path: Path) -> None:
    assert app(tmp_path, "-s", "/srv/mine.yaml", "-m", "pilot")["scenario"] == "/srv/mine.yaml"


def versions_of(store: ClientStore, names: tuple[str, ...]) -> dict[str, Version]:
    """A private state per name."""
    return {name: store.save(name, {"router": torch.full((2,), float(at))}) for at, name in enumerate(names)}


def test_collect_brings_what_the_checkpoint_names_and_no_more(tmp_path: Path) -> None:
    node = ClientStore(tmp_path / "node")
    made = versions_of(node, ("r1p0", "r2p0", "r2p1", "r3p0"))
    now = Progress(3, versions={3: made["r3p0"]}, previous={3: made["r2p1"]}, evaluated={1: {3: made["r1p0"]}})
    save_progress(tmp_path / "run" / "checkpoint", now, "digest")
    collect(tmp_path / "run", {3: tmp_path / "node"})
    target = tmp_path / "run" / "clients" / "3"
    assert sorted(path.name for path in target.iterdir()) == [
        f"{name}.{ending}" for name in ("r1p0", "r2p1", "r3p0") for ending in ("safetensors", "sha256")
    ]
    assert torch.equal(ClientStore(target).load(made["r3p0"])["router"], torch.tensor([3.0, 3.0]))


def test_collect_refuses_another_state_than_the_checkpoint_names(tmp_path: Path) -> None:
    node, other = ClientStore(tmp_path / "node"), ClientStore(tmp_path / "other")
    made = versions_of(node, ("r1p0",))
    other.save("r1p0", {"router": torch.ones(2)})
    save_progress(tmp_path / "run" / "checkpoint", Progress(1, versions={3: made["r1p0"]}), "digest")
    with pytest.raises(UserError, match="not the private state that the checkpoint names"):
        collect(tmp_path / "run", {3: tmp_path / "other"})
    with pytest.raises(UserError, match="client 4: .* has no private state of this client"):
        collect(tmp_path / "run", {4: tmp_path / "node"})
    with pytest.raises(UserError, match="no finished round"):
        collect(tmp_path, {3: tmp_path / "node"})
    assert not (tmp_path / "run" / "clients").exists()
