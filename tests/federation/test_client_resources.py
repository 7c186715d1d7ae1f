"""What a simulated client has to itself: from the command line to Ray."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pilot.cli.main import app
from pilot.errors import UserError
from pilot.federation.flower import server
from pilot.federation.flower.server import ClientResources, simulation_backend

from ..small import Small, quiet


def test_resources_are_what_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    default, given = simulation_backend(), simulation_backend(ClientResources(2.0, 0.5))
    assert default["client_resources"] == {"num_cpus": 1.0, "num_gpus": 0.0, "max_restarts": -1}
    assert given["client_resources"] == {"num_cpus": 2.0, "num_gpus": 0.5, "max_restarts": -1}
    assert given["init_args"]["num_cpus"] == 8 and "num_gpus" not in given["init_args"], "Ray finds the GPUs"
    with pytest.raises(UserError, match="--client-cpus: expected at most this machine's 8 cores, got 9"):
        simulation_backend(ClientResources(9.0))


@pytest.mark.parametrize(("options", "expected"), [
    ([], ClientResources(1.0, 0.0)),
    (["--client-cpus", "2", "--client-gpus", "1"], ClientResources(2.0, 1.0)),
])  # fmt: skip
def test_command_line_passes_them_on(
    small: Small, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: ClientResources
) -> None:
    told: dict[str, Any] = {}

    def simulate(spec: Any, folder: Path, run_dir: Path, resume: bool, progress: Any, **others: Any) -> None:
        told.update(others)

    monkeypatch.setattr(server, "simulate_run", simulate)
    command = ["train", "-s", str(small.scenario_file), "-p", str(small.profile_file), "-m", "fedavg"]
    command += ["--results", str(small.results), "--engine", "flower", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert told == {"resources": expected, "replace": False}


def test_gpus_that_are_not_there_are_refused_before_ray_starts(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(server, "run_in_process", lambda *rest: None)
    spec = small.spec("fedavg")
    server.simulate_run(spec, small.folder, tmp_path, True, quiet, resources=ClientResources(1.0, 0.5))
    with pytest.raises(UserError, match="--client-gpus: PyTorch sees 1 GPUs here, got 2"):
        server.simulate_run(spec, small.folder, tmp_path, True, quiet, resources=ClientResources(1.0, 2.0))
