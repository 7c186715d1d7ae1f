"""Every method over Flower's messages, in this process: killed and resumed, its bytes are those of local training.

Server and clients are those of a deployment (`FlowerTransport`, `make_client_app`), each client with its own node
folder; all that travels is packed to Flower's bytes, and states arrive with their names in another order than they
were sent in. That Ray's and a deployment's processes do the same is shown of a few methods in tests/e2e.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from pilot.federation.flower.node_app import NodeFolders, make_client_app
from pilot.federation.flower.transport import FlowerTransport
from pilot.federation.node_folder import POOLED, node_name
from pilot.federation.nodes import prepare_nodes, read_register
from pilot.federation.spec import RunSpec
from pilot.federation.training import CLIENTS, ServerRun, run_server, train_run
from pilot.methods.blind import Blind
from pilot.methods.catalogue import METHODS
from pilot.registry import method_class

from ..marks import few_of
from ..small import Small, contents, quiet
from .grid import GridInProcess, inside_flower
from .test_federation_settings import spec_of

FEW = ("pilot", "scaffold", "central")
"""Each sends something that the others do not: peers, shares of experts, control variates, factors of other ranks..."""
TRAINED = [name for name in METHODS if not issubclass(method_class(name), Blind)]


class Killed(Exception):
    """Stands for whatever ends the server's process."""


def kill(done: int, total: int) -> None:
    """End in the second half of the run."""
    if done > total / 2:
        raise Killed


@pytest.fixture(scope="module")
def nodes(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Node folders of the small scenario."""
    folder = tmp_path_factory.mktemp("nodes")
    prepare_nodes(small.scenario, small.folder, folder)
    return folder


def train(small: Small, nodes: Path, run_dir: Path, spec: RunSpec, progress: Callable[[int, int], None]) -> None:
    """Train over the grid, or go on there, with two clients at a time."""
    clients = [POOLED] if spec.make_method().pooled else list(range(6))
    places = [NodeFolders(nodes / node_name(client), run_dir / CLIENTS / str(at)) for at, client in enumerate(clients)]
    grid = GridInProcess({100 + at: make_client_app(lambda _, at=at: places[at]) for at in range(len(places))})
    run = ServerRun(spec, read_register(spec, nodes), run_dir, True, progress)
    run_server(run, small.backbone, FlowerTransport(grid, run.config(), run.register.nodes, window=2))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of(FEW, TRAINED))
def test_bytes_do_not_depend_on_the_wire(
    small: Small, nodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    inside_flower(monkeypatch)
    if method != "untuned":
        with pytest.raises(Killed):
            train(small, nodes, tmp_path, small.spec(method), kill)
        assert not (tmp_path / "manifest.json").exists()
    train(small, nodes, tmp_path, small.spec(method), quiet)
    assert contents(tmp_path) == contents(small.run(method))


@pytest.mark.slow
def test_what_validation_measures_is_counted(small: Small) -> None:
    """FedMoE's clients send 4 shares and a loss of 4 bytes each, over the wire as without it (the test above)."""
    assert (small.run("fedmoe") / "ledger.json").read_text().count('"statistics": 20') == 2 * 6


@pytest.mark.slow
def test_newcomers_catch_up_on_their_nodes(
    small: Small, nodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside_flower(monkeypatch)
    spec = spec_of(small, "pilot", {"participation": {"fraction": 0.5}}, rounds=3)
    train_run(spec, small.folder, tmp_path / "local", False, quiet)
    train(small, nodes, tmp_path / "wire", spec, quiet)
    assert contents(tmp_path / "wire") == contents(tmp_path / "local")
