"""Node folders: the data that one client needs for training, and no data of other clients.

`prepare_nodes` splits a scenario's folder into `node-<k>/` (the client's training and validation records, with their
images, and the vision features of these images) and `federation.json`, which the server reads: digests and numbers of
examples, no data. `node-pooled/` holds the records of all clients, for methods that are not federated.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache, FeatureLayout, open_features, write_features
from pilot.config.model import Frame
from pilot.config.scenario import Scenario
from pilot.data.conditions import scenario_images
from pilot.data.frames import in_frame
from pilot.data.record import InstructionRecord, read_records, write_records
from pilot.errors import UserError
from pilot.federation.node_folder import FILES, POOLED, client_of, data_digest, node_name
from pilot.federation.shards import Example, make_examples, records_of_part
from pilot.federation.spec import RunSpec, scenario_digests, scenario_identity
from pilot.io.atomic import remove
from pilot.io.digest import digest_json
from pilot.io.sealed import read_sealed, write_sealed


@dataclass(frozen=True)
class Register:
    """The server's information about its clients' data.

    Attributes:
        digests: see `scenario_digests`.
        num_examples: by client.
        nodes: digest of each client's node folder; empty if clients read the scenario's own folder.
    """

    digests: Mapping[str, str]
    num_examples: Mapping[int, int]
    nodes: Mapping[int, str]


def prepare_nodes(scenario: Scenario, scenario_dir: Path, target: Path) -> None:
    """Write every client's folder and `federation.json` below `target`; do nothing if all exist and are current.

    Folders that were moved to the clients' machines are written again, with the same bytes.

    Raises:
        UserError: a client has no training examples.
    """
    digests = scenario_digests(scenario_dir)
    of = scenario_identity(scenario)
    key = digest_json({"digests": digests, "scenario": of, "files": FILES})
    with contextlib.suppress(UserError):  # absent or damaged: everything is written again
        made = read_sealed(target / "federation.json", {"key": str, "nodes": dict})
        if made["key"] == key and all((target / node_name(name) / "node.json").is_file() for name in made["nodes"]):
            return
    remove(target / "federation.json")
    names = ("train", "validation") if scenario.validation_fraction else ("train",)
    parts = [records_of_part(scenario, scenario_dir, name, frame="original") for name in names]
    features = open_features(scenario_dir / "features")
    holders: dict[int | str, list[Sequence[InstructionRecord]]] = {
        client: [part[client] for part in parts] for client in sorted(parts[0])
    }
    holders[POOLED] = [[record for client in sorted(part) for record in part[client]] for part in parts]
    with scenario_images(scenario, scenario_dir, target) as images:
        nodes = {str(name): _write_node(target, name, own, images, features, of) for name, own in holders.items()}
    write_sealed(
        target / "federation.json", {"key": key, "scenario": scenario.name, "digests": digests, "nodes": nodes}
    )  # fmt: skip


def _write_node(
    target: Path,
    client: int | str,
    parts: Sequence[Sequence[InstructionRecord]],
    images: Mapping[str, bytes],
    features: FeatureCache,
    scenario: str,
) -> dict[str, Any]:
    folder = target / node_name(client)
    remove(folder / "node.json")
    names = sorted({record.image_sha256 for part in parts for record in part})
    for name, records in zip(FILES, (*parts, []), strict=False):
        write_records(folder / name, records, images)
    _, tokens, width = features.shards[0].shape
    layout = FeatureLayout(len(names), tokens, width, features.dtype)
    write_features(
        folder, names, layout, features.digest, lambda chunk: features.take([features.row_of[name] for name in chunk])
    )  # fmt: skip
    digest = data_digest(folder)
    entry = {"num_examples": len(parts[0]), "digest": digest}
    write_sealed(folder / "node.json", entry | {"client": client, "scenario": scenario})
    return entry


def read_register(spec: RunSpec, folder: Path) -> Register:
    """Read the entries of `federation.json` for the clients of a run.

    Raises:
        UserError: it is missing, damaged, or of another scenario, or it lacks a node.
    """
    path = folder / "federation.json"
    if not path.is_file():
        raise UserError(f"{path}: missing. Run `pilot-bench deploy nodes --scenario {spec.scenario.name}` first.")
    value = read_sealed(path, {"scenario": str, "nodes": dict, "digests": dict})
    if value["scenario"] != spec.scenario.name:
        raise UserError(
            f"{path}: field scenario: expected {spec.scenario.name}, got {value['scenario']}. Choose its nodes' folder."
        )
    clients = spec.clients(spec.make_method())
    names = {info.client: POOLED if spec.make_method().pooled else str(info.client) for info in clients}
    missing = sorted(set(names.values()) - value["nodes"].keys())
    if missing:
        raise UserError(f"{path}: field nodes: no entry for {missing[0]}. Run `pilot-bench deploy nodes` again.")
    entries = {client: value["nodes"][name] for client, name in names.items()}
    return Register(
        value["digests"],
        {client: entry["num_examples"] for client, entry in entries.items()},
        {client: entry["digest"] for client, entry in entries.items()},
    )


@dataclass(frozen=True)
class NodeData:
    """One client's data, as read by its node."""

    client: int
    examples: list[Example]
    validation: list[Example]
    features: FeatureCache


def open_node(folder: Path, backbone: Backbone, frame: Frame) -> NodeData:
    """Read a node folder; boxes in training targets are in `frame`."""
    client = client_of(folder)
    features = open_features(folder)
    paths = [folder / name for name in FILES]
    examples, validation = (
        make_examples(backbone, features, in_frame(read_records(path, images=False), frame, path)) for path in paths
    )
    return NodeData(client, examples, validation, features)
