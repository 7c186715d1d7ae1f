"""Node folders: what one client needs to train, and nothing of any other client's.

`prepare_nodes` splits a scenario's folder into `node-<k>/` (the client's training records, with their images, and the
vision features of these images) and `federation.json`, which the server reads: digests and numbers of examples, no
data. `node-pooled/` holds everybody's records, for methods that are not federated.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache, Layout, open_features, write_features
from pilot.config import Scenario
from pilot.data.record import InstructionRecord, read_records, write_records
from pilot.errors import UserError
from pilot.federation.node_folder import POOLED, client_of, data_digest, node_name
from pilot.federation.shards import Example, make_examples, records_of_part
from pilot.federation.spec import RunSpec, scenario_digests, scenario_identity
from pilot.io.atomic import remove
from pilot.io.digest import digest_json
from pilot.io.sealed import read_sealed, write_sealed


@dataclass(frozen=True)
class Register:
    """What the server knows about its clients' data.

    Attributes:
        digests: as of `scenario_digests`.
        num_examples: by client.
        nodes: digest of each client's node folder; empty where clients read the scenario's own folder.
    """

    digests: Mapping[str, str]
    num_examples: Mapping[int, int]
    nodes: Mapping[int, str]


def prepare_nodes(scenario: Scenario, scenario_dir: Path, target: Path) -> None:
    """Write every client's folder and `federation.json` below `target`; nothing where all are there already.

    Folders that were moved away, to the clients' machines, are written again: the same bytes.

    Raises:
        UserError: a client has no training examples.
    """
    digests = scenario_digests(scenario_dir)
    of = scenario_identity(scenario)
    key = digest_json({"digests": digests, "scenario": of})
    with contextlib.suppress(UserError):  # absent or damaged: everything is written again
        made = read_sealed(target / "federation.json", {"key": str, "nodes": dict})
        if made["key"] == key and all((target / node_name(name) / "node.json").is_file() for name in made["nodes"]):
            return
    remove(target / "federation.json")
    shards = records_of_part(scenario, scenario_dir, "train", images=True)
    features = open_features(scenario_dir / "features")
    nodes = {str(k): _write_node(target, k, records, features, of) for k, records in sorted(shards.items())}
    everything = [record for client in sorted(shards) for record in shards[client]]
    nodes[POOLED] = _write_node(target, POOLED, everything, features, of)
    write_sealed(
        target / "federation.json", {"key": key, "scenario": scenario.name, "digests": digests, "nodes": nodes}
    )  # fmt: skip


def _write_node(
    target: Path, client: int | str, records: Sequence[InstructionRecord], features: FeatureCache, scenario: str
) -> dict[str, Any]:
    folder = target / node_name(client)
    remove(folder / "node.json")
    names = sorted({record.image_sha256 for record in records})
    write_records(folder / "records.parquet", records)
    _, tokens, width = features.shards[0].shape
    layout = Layout(len(names), tokens, width, features.dtype)
    write_features(
        folder, names, layout, features.digest, lambda chunk: features.take([features.row_of[name] for name in chunk])
    )  # fmt: skip
    digest = data_digest(folder)
    entry = {"num_examples": len(records), "digest": digest}
    write_sealed(folder / "node.json", entry | {"client": client, "scenario": scenario})
    return entry


def read_register(spec: RunSpec, folder: Path) -> Register:
    """What `federation.json` says for a run of this method.

    Raises:
        UserError: it is missing, or of another scenario.
    """
    path = folder / "federation.json"
    if not path.is_file():
        raise UserError(f"{path}: missing. Run `pilot-bench deploy nodes --scenario {spec.scenario.name}` first.")
    value = read_sealed(path, {"scenario": str, "nodes": dict, "digests": dict})
    if value["scenario"] != spec.scenario.name:
        raise UserError(f"{path}: of scenario {value['scenario']}, expected {spec.scenario.name}.")
    clients = spec.clients(spec.make_method())
    names = {info.client: POOLED if spec.make_method().pooled else str(info.client) for info in clients}
    missing = sorted(set(names.values()) - value["nodes"].keys())
    if missing:
        raise UserError(f"{path}: has no node {missing[0]}. Prepare the nodes again.")
    entries = {client: value["nodes"][name] for client, name in names.items()}
    return Register(
        value["digests"],
        {client: entry["num_examples"] for client, entry in entries.items()},
        {client: entry["digest"] for client, entry in entries.items()},
    )


@dataclass(frozen=True)
class NodeData:
    """One client's data, as its node reads them."""

    client: int
    examples: list[Example]
    features: FeatureCache


def open_node(folder: Path, backbone: Backbone) -> NodeData:
    """Read a node folder."""
    client = client_of(folder)
    features = open_features(folder)
    examples = make_examples(backbone, features, read_records(folder / "records.parquet", images=False))
    return NodeData(client, examples, features)
