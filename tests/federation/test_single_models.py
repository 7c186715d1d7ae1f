"""The model of a method with one for all is what the server sends, without any client's private state."""

import shutil
from pathlib import Path

import pytest
import torch

from pilot.federation.checkpoint import load_last
from pilot.federation.client import build_client_model
from pilot.federation.identity import CLIENTS
from pilot.federation.store import ClientStore
from pilot.federation.training import client_models
from pilot.methods.base import State
from pilot.methods.blind import Blind
from pilot.methods.catalogue import METHODS
from pilot.registry import method_class

from ..marks import few_of
from ..small import Small

SENDING = {name: method_class(name) for name in METHODS if method_class(name).exchanges and name != "untuned"}
SINGLE = [name for name, made in SENDING.items() if made.single_model and not issubclass(made, Blind)]


def differs_most(a: State, b: State) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of(["rolora"], SINGLE))
def test_a_single_model_needs_no_client(small: Small, method: str, tmp_path: Path) -> None:
    """Every client's private state and its own payload give the same model; with whole runs, the same bits."""
    run, spec = small.run(method), small.spec(method)
    server_only = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns(CLIENTS))
    (load,) = client_models(spec, small.backbone, server_only).values()
    model = load().state()
    made, progress = spec.make_method(), load_last(run / "checkpoint")
    phase = made.final_phase(spec.profile.rounds)
    assert phase is not None and progress.server.shared
    for info in spec.clients(made):
        stored = ClientStore(run / CLIENTS / str(info.client)).load(progress.versions.get(info.client))
        payload = made.payload(progress.server, info, phase)
        own = build_client_model(small.backbone, made, phase, info, stored, payload).state()
        if method == "disco" and info.client:  # groups in another order, that of the client's own first
            continue
        assert all(torch.equal(own[name], value) for name, value in model.items()), differs_most(own, model)
