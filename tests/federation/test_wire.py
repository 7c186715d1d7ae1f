"""Runs over Flower's messages, packed and unpacked in this process: the bytes of training without them."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig

from pilot.federation import flower_transport
from pilot.federation.flower_transport import FlowerTransport
from pilot.federation.node_app import Place, make_client_app
from pilot.federation.node_folder import node_name
from pilot.federation.nodes import prepare_nodes, read_register
from pilot.federation.spec import RunSpec
from pilot.federation.training import CLIENTS, Conduct, conduct, train_run

from ..small import Small, contents, quiet
from .test_federation_settings import spec_of
from .test_flower_transport import inside_flower

__all__ = ["inside_flower"]
pytestmark = pytest.mark.slow


class Nodes:
    """A grid whose node k is client k, with its own folders."""

    def __init__(self, places: dict[int, Place]) -> None:
        self.apps = {client: make_client_app(lambda context, place=place: place) for client, place in places.items()}
        self.replies: dict[str, Message] = {}
        self.ids = itertools.count()

    def get_node_ids(self) -> list[int]:
        return list(self.apps)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        names = []
        for message in messages:
            names.append(name := f"message {next(self.ids)}")
            message.metadata.__dict__["_message_id"] = name
            context = Context(1, message.metadata.dst_node_id, UserConfig(), RecordDict(), UserConfig())
            self.replies[name] = self.apps[message.metadata.dst_node_id](message, context)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self.replies.pop(name) for name in message_ids if name in self.replies]


def run_over_wire(small: Small, spec: RunSpec, root: Path) -> dict[str, bytes]:
    """Train with every client in a node folder of its own."""
    prepare_nodes(spec.scenario, small.folder, root / "nodes")
    run = Conduct(spec, read_register(spec, root / "nodes"), root / "run", False, quiet)
    places = {k: Place(root / "nodes" / node_name(k), root / "run" / CLIENTS / str(k)) for k in range(6)}
    grid: Any = Nodes(places)
    conduct(run, small.backbone, FlowerTransport(grid, run.config(), run.register.nodes))
    return contents(root / "run")


def test_validation_parts_reach_the_nodes(small: Small, tmp_path: Path) -> None:
    """FedMoE measures on them, and the server counts what it is told: 4 shares and a loss, 20 bytes."""
    assert flower_transport.POLL_SECONDS < 0.01
    assert run_over_wire(small, small.spec("fedmoe"), tmp_path) == contents(small.run("fedmoe"))
    ledger = (tmp_path / "run/ledger.json").read_text()
    assert ledger.count('"statistics": 20') == 2 * 6


def test_newcomers_catch_up_on_their_nodes(small: Small, tmp_path: Path) -> None:
    spec = spec_of(small, "pilot", {"participation": {"fraction": 0.5}}, rounds=3)
    train_run(spec, small.folder, tmp_path / "local", False, quiet)
    assert run_over_wire(small, spec, tmp_path / "wire") == contents(tmp_path / "local")
