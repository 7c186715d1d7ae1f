"""A real deployment on the loopback interface: who is let in, what a run gets, how it ends."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.deployment.certificates import make_certificates, make_node_key
from pilot.deployment.local import Node
from pilot.errors import UserError
from pilot.io.processes import Process

from .breakable import BreakableDeployment

pytestmark = pytest.mark.engine
ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"greeting": "hello, two words", "nodes": 2, "linger": 0.0, "fail": False}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BreakableDeployment]:
    """Two nodes; that all processes end is checked at the end."""
    root = tmp_path_factory.mktemp("deployment")
    nodes = [Node(root / f"data {number}", root / f"state {number}") for number in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        with BreakableDeployment(root / "work", nodes, app="tests.e2e.deployment_app") as started:
            assert any("pilot.deployment.superlink" in command for command in started.processes.running().values())
            yield started
        assert started.processes.running() == {}


def ended(process: Process) -> str:
    """The log of a process that ends by itself with an error."""
    assert process.popen.wait(timeout=600) == 1
    return "\n".join(process.lines())


def server_log(deployment: BreakableDeployment) -> str:
    """What the SuperLink has said."""
    return (deployment.folder / "logs" / "superlink.log").read_text(encoding="utf-8")


def test_a_run_reaches_every_node_with_its_own_folders(deployment: BreakableDeployment) -> None:
    lines: list[str] = []
    deployment.run(OPTIONS, lines.append)
    root = deployment.folder.parent
    assert "greeting hello, two words" in lines
    said = sorted(line for line in lines if line.startswith("node says"))
    assert said == [f"node says {root}/data {number} {root}/state {number}" for number in range(2)]


@pytest.mark.exhaustive
def test_a_failed_run_is_an_error(deployment: BreakableDeployment) -> None:
    lines: list[str] = []
    with pytest.raises(UserError, match=r"ended as finished:failed .*told to fail.*The logs are in"):
        deployment.run({**OPTIONS, "fail": True}, lines.append)
    assert "RuntimeError: told to fail" in lines


def test_a_key_that_was_not_registered_is_refused(deployment: BreakableDeployment) -> None:
    key = deployment.folder / "keys" / "stranger"
    make_node_key(key)
    stranger = deployment.launch_unregistered_node("stranger", key)
    assert "Failed to activate SuperNode" in ended(stranger)
    assert "[/v1/fleet/activate-node][ApiError:2004]" in server_log(deployment)


def test_a_node_without_a_key_is_refused(deployment: BreakableDeployment) -> None:
    nobody = deployment.launch_unregistered_node("nobody", None)
    assert "SuperNode authentication is enabled. All SuperNodes must be registered" in ended(nobody)
    assert "[/v1/fleet/register-node][ApiError:2001]" in server_log(deployment)


def test_a_key_in_use_is_refused(deployment: BreakableDeployment) -> None:
    twin = deployment.launch_unregistered_node("twin", deployment.key(0))
    assert "Failed to activate SuperNode" in ended(twin)


def test_a_node_does_not_talk_to_a_server_of_another_authority(deployment: BreakableDeployment) -> None:
    other = make_certificates(deployment.folder / "other").authority
    wary = deployment.launch_unregistered_node("wary", deployment.key(0), other)
    assert "certificate verify failed: unable to get local issuer certificate" in ended(wary)
    assert "Rejected a node, TLS handshake failed: TLSV1_ALERT_UNKNOWN_CA (the node's --root-cert" in server_log(
        deployment
    )


@pytest.mark.exhaustive
def test_a_killed_server_app_is_stopped_and_the_run_can_be_submitted_again(deployment: BreakableDeployment) -> None:
    run = deployment.submit({**OPTIONS, "linger": 60.0})
    wait_for_server_app(deployment)
    deployment.flower.stop(run)
    assert deployment.flower.status(run).status == "finished:stopped"
    deployment.run(OPTIONS, lambda line: None)


@pytest.mark.exhaustive
def test_a_killed_superlink_is_started_again_with_its_nodes(deployment: BreakableDeployment) -> None:
    deployment.kill_superlink()
    with pytest.raises(UserError, match="submitting the run failed"):
        deployment.submit(OPTIONS)
    deployment.restart_superlink()
    deployment.run(OPTIONS, lambda line: None)


def wait_for_server_app(deployment: BreakableDeployment) -> None:
    """Kill it as soon as it is there."""
    until = time.monotonic() + 600
    while time.monotonic() < until:
        try:
            return deployment.kill_server_app()
        except ProcessLookupError:
            time.sleep(0.2)
    raise AssertionError("no ServerApp within ten minutes")
