"""Real runs on a real deployment (TLS, node keys, a process per node): same bytes, nothing private in any message.

Flower starts a process for every message, so there is one client per task.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.config.load import load_profile
from pilot.data.record import read_records
from pilot.deployment.local import Node
from pilot.deployment.training import collect
from pilot.errors import UserError
from pilot.federation.checkpoint import load_progress
from pilot.federation.node_folder import node_name
from pilot.federation.nodes import prepare_nodes
from pilot.federation.store import ClientStore
from pilot.federation.training import train_run
from pilot.io.atomic import read_jsonl
from pilot.io.sealed import read_sealed, write_sealed
from pilot.methods.base import group_of

from ..marks import few_of
from ..small import Small, contents, quiet
from .breakable import BreakableDeployment

pytestmark = pytest.mark.engine
ROOT = Path(__file__).resolve().parents[2]
METHODS = ("pilot", "fedavg", "fedprox", "fedmoe", "local", "central", "untuned", "feddat")
CLIENTS = range(3)
POOLED, STRANGE, TWIN = 3, 4, 5
"""Nodes beside those of the clients: one with everybody's data, one with altered data, one that claims client 1."""


class Deployed:
    """A deployment of the small scenario with a results folder of its own."""

    def __init__(self, small: Small, root: Path) -> None:
        self.small, self.root = small, root
        self.results = root / "results"
        self.folder = self.results / "tiny" / "small"
        prepare_nodes(small.scenario, small.folder, root / "nodes")
        shutil.copytree(root / "nodes" / node_name(1), root / "nodes" / "strange")
        node = read_sealed(root / "nodes" / "strange" / "node.json")
        write_sealed(root / "nodes" / "strange" / "node.json", node | {"scenario": "0" * 64})
        shutil.copy(root / "nodes" / node_name(0) / "records.parquet", root / "nodes" / "strange" / "records.parquet")
        folders = [*map(node_name, (*CLIENTS, "pooled")), "strange", node_name(1)]
        self.nodes = [Node(root / "nodes" / name, root / "state" / str(k)) for k, name in enumerate(folders)]
        self.deployment = BreakableDeployment(root / "work", self.nodes[:STRANGE], app="tests.e2e.recording_app")

    def options(self, method: str, **more: str | float | bool) -> dict[str, str | int | float | bool]:
        """The run configuration."""
        return {
            "scenario": str(self.small.scenario_file), "profile": str(self.small.profile_file), "method": method,
            "seed": 0, "results": str(self.results), "nodes": str(self.root / "nodes"), "resume": True, "window": 2,
            **more,
        }  # fmt: skip

    def run_dir(self, method: str) -> Path:
        """Where a run goes."""
        return self.folder / "runs" / method / "seed0"

    def finish(self, method: str) -> dict[str, bytes]:
        """The files of a finished run, with the private state that its nodes keep."""
        progress = load_progress(self.run_dir(method) / "checkpoint", None)
        assert progress is not None
        places = {0: POOLED} if method == "central" else {client: client for client in CLIENTS}
        stores = {client: self.nodes[places[client]].state for client in progress.versions}
        collect(self.run_dir(method), stores)
        return contents(self.run_dir(method))

    def log(self, name: str) -> str:
        """What a process has said so far."""
        return (self.root / "work" / "logs" / f"{name}.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def deployed(few: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Started once for all tests."""
    made = Deployed(few, tmp_path_factory.mktemp("deployed"))
    with pytest.MonkeyPatch.context() as patch:  # processes import the recording app
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        with made.deployment:
            yield made
    assert made.deployment.processes.running() == {}


def run(deployed: Deployed, method: str, **more: str | float | bool) -> list[str]:
    """Run to the end; returns the ServerApp's log."""
    lines: list[str] = []
    deployed.deployment.run(deployed.options(method, **more), lines.append)
    return lines


@pytest.mark.parametrize("versions", few_of([["r1p1"]], [["r1p0", "r1p1", "r2p0"]]), ids=len)
def test_killed_nodes_come_back_and_the_bytes_are_the_same(deployed: Deployed, versions: list[str]) -> None:
    """`kill -9` of a SuperNode in a phase, or in each (stage 1, stage 2, and the second round's); then of a client's
    process.

    The server waits for the node and asks it again; a node that had not yet taken its message gets it when it is back.
    """
    victim, other = 2, 1
    shutil.rmtree(deployed.run_dir("pilot"), ignore_errors=True)
    for node in deployed.nodes[:STRANGE]:
        shutil.rmtree(node.state, ignore_errors=True)
    lines: list[str] = []
    submitted = deployed.deployment.submit(deployed.options("pilot"))
    for version in versions:
        wait_for(deployed.nodes[0].state / f"{version}.sha256")
        deployed.deployment.kill_node(victim)
        deployed.deployment.restart_node(victim)
        if version == "r1p1":
            kill_task(deployed, other)
    assert deployed.deployment.follow(submitted, lines.append).completed
    assert deployed.log(f"node-{victim}").count("SuperNode ID:") >= 1 + len(versions), "it was let in again"
    assert "registered for client 0" in "\n".join(lines), "the pooled node does not fit"
    assert deployed.finish("pilot") == contents(deployed.small.run("pilot"))


@pytest.mark.parametrize("method", few_of([], METHODS))
def test_deployment_gives_the_bytes_of_local_training(deployed: Deployed, method: str) -> None:
    """The pooled node does not fit a federated run, and the others do not fit `central`: refused, on both sides."""
    lines = "\n".join(run(deployed, method))
    assert deployed.finish(method) == contents(deployed.small.run(method))
    if method == "central":
        assert "client 1 is not in this run" in lines and "client 1 is not in this run" in deployed.log("node-1")
    elif method != "untuned":
        assert "registered for client 0" in lines and "registered for client 0" in deployed.log(f"node-{POOLED}")


@pytest.mark.exhaustive
def test_an_asynchronous_run_on_a_deployment(deployed: Deployed, tmp_path: Path) -> None:
    """Waves of a virtual clock, some of a single node: the bytes of local training; the server reports to trackers."""
    clock = "federation: {participation: {clock: {speeds: [1, 0.4, 2.5], delays: [0, 1]}}}\n"
    profile = tmp_path / "timed.yaml"
    profile.write_text(
        deployed.small.profile_text.replace("name: tiny", "name: timed") + clock + "tracking: [tensorboard]\n"
    )
    run(deployed, "fedbuff", profile=str(profile))
    spec = replace(deployed.small.spec("fedbuff"), profile=load_profile(profile))
    train_run(spec, deployed.small.folder, tmp_path / "here", False, quiet)
    assert contents(deployed.results / "timed/small/runs/fedbuff/seed0") == contents(tmp_path / "here")
    assert list((deployed.results / "timed/small/tensorboard/fedbuff/seed0").iterdir())


@pytest.mark.exhaustive
def test_models_of_evaluated_rounds_are_kept(deployed: Deployed, tmp_path: Path) -> None:
    """Nodes keep their private states of those rounds, too, and `collect` brings them."""
    text = deployed.small.profile_text.replace("name: tiny", "name: kept") + "evaluate_every: 1\n"
    profile = tmp_path / "kept.yaml"
    profile.write_text(text)
    run(deployed, "local", profile=str(profile))
    spec = replace(deployed.small.spec("local"), profile=load_profile(profile))
    train_run(spec, deployed.small.folder, tmp_path / "here", False, quiet)
    found = deployed.results / "kept/small/runs/local/seed0"
    progress = load_progress(found / "checkpoint", None)
    assert progress is not None and set(progress.evaluated) == {1}
    collect(found, {client: deployed.nodes[client].state for client in CLIENTS})
    assert contents(found) == contents(tmp_path / "here")


def test_nothing_private_is_in_any_message(deployed: Deployed) -> None:
    """Every message of Pilot, as it passed the server: no image, no text, no private tensor, no other group."""
    folder = deployed.results / "messages" / "pilot"
    binary = [path.read_bytes() for path in sorted(folder.glob("*.bin"))]
    texts = [path.read_text() for path in sorted(folder.glob("*.json"))]
    assert len(texts) > 2 * len(CLIENTS) * 3
    everything = b"\0".join(binary) + "\0".join(texts).encode()
    records = [
        record
        for task in deployed.small.scenario.tasks
        for record in read_records(deployed.small.folder / "data" / task.name / "records.parquet")
    ]
    assert len(records) > 100
    for record in records:
        assert record.image not in everything and record.image[64:128] not in everything
        assert record.instruction.encode() not in everything
        assert len(record.answer) < 8 or record.answer.encode() not in everything
    progress = load_progress(deployed.run_dir("pilot") / "checkpoint", None)
    assert progress is not None and len(progress.versions) == len(CLIENTS)
    private = 0
    for client, version in progress.versions.items():
        for name, value in ClientStore(deployed.run_dir("pilot") / "clients" / str(client)).load(version).items():
            if value.unique().numel() > 1:  # a constant, such as zeros before training, is nobody's secret
                assert value.numpy().tobytes() not in everything, name
                private += 1
    assert private > len(CLIENTS) * 5
    one = next(iter(progress.server.per_client.values()))
    shared = next(value for name, value in sorted(one.items()) if name.endswith("lora_B"))
    assert len(shared.numpy().tobytes()) > 1000
    groups = {"up": set[str](), "down": set[str]()}
    for path in folder.glob("*.json"):
        for names in json.loads(path.read_text()).get("tensors", {}).values():
            groups[path.stem.split("-")[1]] |= {group_of(name) for name in names}
    assert groups["up"] == {"task_adapter", "text_adapter"}
    assert groups["down"] == {"task_adapter", "text_adapter", "peer_task_adapter"}


def test_what_left_is_found_where_it_was_sent(deployed: Deployed) -> None:
    """The search of the test above can find things: the server's own tensors went down to clients as they are."""
    folder = deployed.results / "messages" / "pilot"
    everything = b"\0".join(path.read_bytes() for path in sorted(folder.glob("*.bin")))
    shutil.copytree(deployed.run_dir("pilot") / "checkpoint", deployed.root / "before")
    shutil.rmtree(deployed.root / "before" / "round-2")
    before = load_progress(deployed.root / "before", None)
    assert before is not None and before.round_number == 1
    states = [before.server.shared, *before.server.per_client.values()]
    assert len(states) == 1 + len(CLIENTS) and all(states)
    for value in (value for state in states for value in state.values()):
        assert value.numpy().tobytes() in everything


def kill_task(deployed: Deployed, number: int) -> None:
    """`kill -9` the process that works on a node's next message."""
    until = time.monotonic() + 900
    while time.monotonic() < until:
        try:
            return deployed.deployment.kill_task(number)
        except ProcessLookupError:
            time.sleep(0.05)
    raise AssertionError(f"node {number} got no message")


def wait_for(path: Path) -> None:
    """Until a file is there."""
    until = time.monotonic() + 900
    while not path.is_file():
        assert time.monotonic() < until, path
        time.sleep(0.1)


@pytest.mark.exhaustive
def test_killed_server_resumes(deployed: Deployed) -> None:
    """`kill -9` of the ServerApp, then of the SuperLink; submitted again, the run goes on from its last round."""
    shutil.rmtree(deployed.run_dir("pilot"), ignore_errors=True)
    seal = deployed.run_dir("pilot") / "checkpoint" / "round-1" / "complete.json"
    submitted = deployed.deployment.submit(deployed.options("pilot"))
    wait_for(seal)
    deployed.deployment.kill_server_app()
    deployed.deployment.flower.stop(submitted)
    deployed.deployment.kill_superlink()
    assert not (deployed.run_dir("pilot") / "manifest.json").exists()
    deployed.deployment.restart_superlink()
    run(deployed, "pilot")
    assert deployed.finish("pilot") == contents(deployed.small.run("pilot"))


@pytest.mark.exhaustive
def test_doubled_client_and_altered_node_are_refused_and_the_others_go_on(few: Small, tmp_path: Path) -> None:
    """Two nodes claim client 1, so neither is believed; one has other data and another scenario. Quorum is 1."""
    made = Deployed(few, tmp_path)
    made.deployment = BreakableDeployment(tmp_path / "work", [*made.nodes[:POOLED], *made.nodes[STRANGE:]])
    lines: list[str] = []
    with made.deployment:
        made.deployment.run(made.options("fedavg", patience=30.0), lines.append)
    log = "\n".join(lines)
    assert "claims client 1, which another node claims as well" in log
    assert "claims client 1" in made.log("node-1") and "claims client 1" in made.log("node-4")
    assert "scenario 000000000000 here" in log and "does not fit the run" in made.log("node-3")
    rows = read_jsonl(made.run_dir("fedavg") / "rounds.jsonl")
    for row in rows:
        assert row["excluded"] == [{"client": 1, "reason": "no answer: no node for 30 s"}]
        assert [each["client"] for each in row["clients"]] == [0, 2]


@pytest.mark.exhaustive
def test_a_deployment_without_nodes_says_so(few: Small, tmp_path: Path) -> None:
    made = Deployed(few, tmp_path)
    made.deployment = BreakableDeployment(tmp_path / "work", [])
    with made.deployment, pytest.raises(UserError, match="finished:failed"):
        made.deployment.run(made.options("fedavg", patience=5.0), print)
