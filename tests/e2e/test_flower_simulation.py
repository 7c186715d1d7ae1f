"""Flower's simulation engine (Ray) against training in this process: the same bytes, also after a worker was killed.

`flwr run .` is started as docs/federation.md has it. Every method, without Ray: tests/federation/test_wire.py.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.config.federation import ClockConfig, ParticipationConfig
from pilot.deployment.flower_command import environment
from pilot.errors import UserError
from pilot.federation.checkpoint import rounds_of
from pilot.federation.flower.server import simulate_run
from pilot.federation.training import train_run
from pilot.io.atomic import read_json
from pilot.io.processes import Processes, free_port

from ..docs.pages import commands_of
from ..marks import few_of
from ..small import Small, contents, quiet

pytestmark = pytest.mark.engine
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/federation.md"
METHODS = ("pilot", "fedavg", "fedprox", "fedmoe", "local", "central", "untuned", "scaffold", "feddat")


@pytest.mark.parametrize("method", few_of([], METHODS))
def test_simulation_gives_the_bytes_of_local_training(few: Small, tmp_path: Path, method: str) -> None:
    simulate_run(few.spec(method), few.folder, tmp_path, False, quiet)
    assert contents(tmp_path) == contents(few.run(method))
    timing = read_json(tmp_path / "timing.json")
    assert timing["exchange_seconds"] > 0 or method == "untuned"


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", ["fedbuff", "fedasync", "fedavg"])
def test_a_virtual_clock_is_the_same_in_a_simulation(few: Small, tmp_path: Path, method: str) -> None:
    """Clients of unequal speed: an asynchronous method takes some of them several times in a round."""
    participation = ParticipationConfig(clock=ClockConfig(speeds=(1.0, 0.4, 2.5), delays=(0.0, 1.0)))
    federation = few.profile.federation.model_copy(update={"participation": participation})
    spec = replace(few.spec(method), profile=few.profile.model_copy(update={"federation": federation}))
    train_run(spec, few.folder, tmp_path / "here", False, quiet)
    simulate_run(spec, few.folder, tmp_path / "simulated", False, quiet)
    assert contents(tmp_path / "simulated") == contents(tmp_path / "here")


@pytest.mark.exhaustive
def test_models_of_evaluated_rounds_are_kept(few: Small, tmp_path: Path) -> None:
    profile = few.profile.model_copy(update={"rounds": 4, "evaluate_every": 2})
    spec = replace(few.spec("pilot"), profile=profile)
    train_run(spec, few.folder, tmp_path / "here", False, quiet)
    simulate_run(spec, few.folder, tmp_path / "simulated", False, quiet)
    assert rounds_of(tmp_path / "simulated/checkpoint") == [2, 3, 4]
    assert contents(tmp_path / "simulated") == contents(tmp_path / "here")


@pytest.mark.exhaustive
def test_flwr_run_as_documented(few: Small, tmp_path: Path) -> None:
    """The page's two commands; files, folders and the number of clients are the small scenario's."""
    exports, command = [
        each.text for each in commands_of(PAGE.name, PAGE.read_text()) if each.program in ("export", "flwr")
    ]
    shutil.copytree(few.folder, tmp_path / "results/tiny/small", ignore=shutil.ignore_patterns("runs"))
    for old, new in (
        ("num-supernodes=9", "num-supernodes=3"), ("'scenario2'", f"'{few.scenario_file}'"),
        ("'embedded'", f"'{few.profile_file}'"), ("$PWD", str(tmp_path)),
    ):  # fmt: skip
        assert command.count(old) == 1, command
        command = command.replace(old, new)
    ports = {"FLWR_LOCAL_CONTROL_API_PORT": free_port(())}
    ports |= {"FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": free_port([*ports.values()])}
    processes = Processes(tmp_path / "logs", environment(tmp_path / "flwr") | {k: str(v) for k, v in ports.items()})
    try:
        for _ in range(4):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"{exports}\n{command}"],
                cwd=ROOT, env=processes.full_environment(), capture_output=True, text=True, timeout=600,
            )  # fmt: skip
            if "Failed to start local SuperLink within" not in done.stdout + done.stderr:  # as on a busy machine
                break
        stayed = processes.running()
    finally:
        processes.end()  # of which the page says that it stays
    assert done.returncode == 0, done.stdout + done.stderr
    assert any("superlink" in each for each in stayed.values())
    assert contents(tmp_path / "results/tiny/small/runs/pilot/seed0") == contents(few.run("pilot"))


def workers() -> list[int]:
    """Ray's worker processes on this machine that are descendants of this process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::ClientAppActor") and _is_ours(int(entry.name)):
                found.append(int(entry.name))
    return found


def _is_ours(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rsplit(")", 1)[1].split()[1])
    return False


@pytest.mark.parametrize("moments", few_of([{1, 3}], [{1, 2, 3, 4, 5, 6}, {0}, {2}, {5}]))
def test_killed_ray_workers(few: Small, tmp_path: Path, moments: set[int]) -> None:
    """A worker is killed after so many answers of clients, at 0 as soon as there is one.

    The run goes on, or ends with an error and resumes; the bytes are those of an undisturbed run.
    """
    killed: list[int] = []
    answers = 0

    def kill_one() -> None:
        until = time.monotonic() + 60
        while not (found := workers()) and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(found[0], signal.SIGKILL)
        killed.append(found[0])

    def on_answer(done: int, total: int) -> None:
        nonlocal answers
        answers += 1
        if answers in moments and done < total:
            kill_one()

    first = threading.Thread(target=kill_one)
    if 0 in moments:
        first.start()
    for _ in (*moments, None):
        try:
            simulate_run(few.spec("pilot"), few.folder, tmp_path, True, on_answer)
        except UserError as error:
            print(f"ended with: {error}")
        if (tmp_path / "manifest.json").exists():
            break
    if 0 in moments:
        first.join()
    assert len(killed) == len(moments)
    assert contents(tmp_path) == contents(few.run("pilot"))
