"""A node's side of a run over Flower: identification, the check that it fits the run, and its answers.

In a deployment, a SuperNode's `--node-config` gives the folders of the client's data and of its private state
(`data="..." state="..."`). In a simulation both follow from the partition id and the run's results folder. The server's
messages never name these folders.

PyTorch and everything that depends on it are imported when a task needs them: a deployment starts a process per
message, and a node should not take seconds to identify itself.

An error's text stays on the node, in its log; the server only gets the error's type, since the text could quote data.
"""

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from pilot.backbone.sources import backbone_digest
from pilot.config.files import restored
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.federation.flower.wire import pack, unpack_json
from pilot.federation.node_folder import POOLED, node_digest, node_name, read_node
from pilot.provenance import package_versions, stage_digest

if TYPE_CHECKING:
    from pilot.backbone.backbone import Backbone
    from pilot.federation.client import PhaseTask
    from pilot.federation.participant import Participant

log = logging.getLogger("flwr")


@dataclass(frozen=True)
class NodeFolders:
    """Folders of a client's data and of its private state."""

    data: Path
    state: Path


LocateFolders = Callable[[Context], NodeFolders]


def locate_folders(context: Context) -> NodeFolders:
    """Find a node's folders from its own configuration or, in a simulation, from the run's.

    Raises:
        UserError: neither configuration gives them.
    """
    node, run = context.node_config, context.run_config
    if "data" in node and "state" in node:
        return NodeFolders(Path(str(node["data"])), Path(str(node["state"])))
    if "partition-id" not in node or "results" not in run:
        raise UserError('--node-config: expected data="<node folder>" state="<folder for private state>".')
    from pilot.federation.run_inputs import RunInputs

    scenario, profile, method = (str(run[field]) for field in ("scenario", "profile", "method"))
    inputs = RunInputs.from_names(scenario, profile, method, int(str(run["seed"])), Path(str(run["results"])))
    return simulated_folders(inputs.scenario_dir, inputs.run_dir, inputs.spec.make_method().pooled, context)


def simulated_folders(scenario_dir: Path, run_dir: Path, pooled: bool, context: Context) -> NodeFolders:
    """Return the folders of a simulation's virtual node."""
    from pilot.federation.identity import CLIENTS

    partition = int(str(context.node_config["partition-id"]))
    name = node_name(POOLED if pooled else partition)
    return NodeFolders(scenario_dir / "nodes" / name, run_dir / CLIENTS / str(partition))


def make_client_app(find_folders: LocateFolders = locate_folders) -> ClientApp:
    """Create the ClientApp; `find_folders` finds a node's folders."""
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        return _answer(message, lambda asked: pack(_identify(asked, find_folders(context))[0]))

    @app.query("refused")
    def refused(message: Message, context: Context) -> Message:
        def note(asked: dict[str, Any]) -> RecordDict:
            log.error("refused by the server: %s", asked["reason"])
            return pack({})

        return _answer(message, note)

    @app.query("verify")
    def verify(message: Message, context: Context) -> Message:
        def check(asked: dict[str, Any]) -> RecordDict:
            from pilot.federation.store import Version

            folders = find_folders(context)
            participant = _participant(asked, folders, node_digest(folders.data)[1])
            problem = participant.check(Version(**asked["version"]))
            if problem:
                log.error("%s", problem)
            return pack({"problem": "its private state is missing or damaged" if problem else ""})

        return _answer(message, check)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        def run(asked: dict[str, Any]) -> RecordDict:
            from pilot.federation.flower.messages import pack_result, unpack_state

            folders = find_folders(context)
            answer, digest = _identify(asked, folders)
            if answer["refused"]:
                return pack({"failure": f"refused: {answer['refused']}"})
            task = _task(asked, answer["client"], unpack_state(message.content, "payload"))
            return pack_result(_participant(asked, folders, digest).run(task))

        return _answer(message, run)

    return app


def _answer(message: Message, work: Callable[[dict[str, Any]], RecordDict]) -> Message:
    try:
        content = work(unpack_json(message.content))
    except Exception as error:
        log.error("%s", error if isinstance(error, UserError) else traceback.format_exc())
        content = pack({"failure": f"{type(error).__name__} (its node's log has the text)"})
    return Message(content, reply_to=message)


def _identify(asked: Mapping[str, Any], folders: NodeFolders) -> tuple[dict[str, Any], str]:
    """Return the node's client and why the node does not fit the run (empty if it does), and the digest of its data."""
    config = asked["config"]
    client, digest = node_digest(folders.data)
    own = {
        "source": stage_digest("train", config["method"]),
        "backbone": backbone_digest(
            restored(Profile, "configuration from the server: field profile_config", config["profile_config"])
        ),
        "scenario": read_node(folders.data)["scenario"],
    }
    reasons = [
        f"{what} {own[what][:12]} here, {config['digests'][what][:12]} at the server"
        for what in own
        if own[what] != config["digests"][what]
    ]
    here = package_versions()
    reasons += [
        f"{name} {here.get(name)} here, {version} at the server"
        for name, version in asked["versions"].items()
        if here.get(name) != version
    ]
    expected = asked["nodes"].get(str(client))
    if expected is None:
        reasons.append(f"client {client} is not in this run")
    elif expected != digest:
        reasons.append(f"data {digest[:12]} here, {expected[:12]} registered for client {client}")
    if reasons:
        log.error("node of client %s does not fit the run: %s", client, "; ".join(reasons))
    return {"client": client, "refused": "; ".join(reasons)}, digest


def _task(asked: Mapping[str, Any], client: int, payload: dict[str, Any]) -> "PhaseTask":
    from pilot.federation.client import PhaseTask
    from pilot.federation.spec import RunSpec
    from pilot.federation.store import Version

    spec = RunSpec.from_config(asked["config"])
    method = spec.make_method()
    info = spec.clients(method)[client]
    phases = (*method.newcomer_phases(asked["round"]), *method.phases(asked["round"]))
    phase = {each.name: each for each in phases}[asked["phase"]]
    base = Version(**asked["base"]) if asked["base"] else None
    return PhaseTask(
        info, phase, asked["round"], asked["phase_index"], asked["steps"], payload, base, tuple(asked["keep"])
    )  # fmt: skip


def _participant(asked: Mapping[str, Any], folders: NodeFolders, digest: str) -> "Participant":
    return _cached_participant(json.dumps(asked["config"], sort_keys=True), folders, digest)


@lru_cache(maxsize=64)
def _cached_participant(config: str, folders: NodeFolders, node: str) -> "Participant":
    """Create a participant of a run's `config.json` once: a process may serve several clients and many messages."""
    from pilot.federation.assemble import make_participants
    from pilot.federation.nodes import open_node
    from pilot.federation.spec import RunSpec

    spec = RunSpec.from_config(json.loads(config))
    backbone = _cached_backbone(spec.profile.model_dump_json())
    data = open_node(folders.data, backbone, spec.profile.frame)
    participants = make_participants(
        spec, backbone, data.features, {data.client: data.examples}, lambda client: folders.state,
        {data.client: data.validation}, {"node": node},
    )  # fmt: skip
    return participants(data.client)


@lru_cache(maxsize=1)
def _cached_backbone(profile: str) -> "Backbone":
    from pilot.backbone.from_profile import load_backbone

    return load_backbone(Profile.model_validate_json(profile), lean=True)
