"""Processes that are ended together, also those that they started themselves."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.io.processes import Processes, free_port

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="finds grandchildren through /proc")
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = (
    "import subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True);"
    "print('up', flush=True); time.sleep(60)"
)


def wait_until_up(processes: Processes) -> None:
    """Until each has printed its line."""
    until = time.monotonic() + 300
    while not all(process.lines() == ["up"] for process in processes.started):
        assert time.monotonic() < until
        time.sleep(0.05)


@LINUX
def test_grandchildren_of_another_session_are_ended_too(tmp_path: Path) -> None:
    processes = Processes(tmp_path, {})
    processes.start("parent", [sys.executable, "-c", PARENT])
    wait_until_up(processes)
    found = list(processes.running())
    assert len(found) == 2
    processes.end()
    assert processes.running() == {}
    assert [command_line(process) for process in found] == [b"", b""]


def command_line(process: int) -> bytes:
    """Empty for a process that has ended, whether or not its end was noticed by its parent."""
    path = Path(f"/proc/{process}/cmdline")
    return path.read_bytes() if path.exists() else b""


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    processes = Processes(tmp_path, {}, grace=0.3)
    process = processes.start("stubborn", [sys.executable, "-c", STUBBORN])
    wait_until_up(processes)
    processes.end()
    assert process.popen.returncode == -9


def test_environment_and_log(tmp_path: Path) -> None:
    processes = Processes(tmp_path, {"COLOUR": "blue", "SHADE": "dark"})
    code = "import os; print('\\x1b[92m' + os.environ['COLOUR'] + '\\x1b[0m', os.environ['SHADE']); raise OSError('no')"
    process = processes.start("painter", [sys.executable, "-c", code], {"SHADE": "light"})
    process.popen.wait()
    assert process.lines()[0] == "blue light"
    assert process.last_error_lines() == "OSError: no"
    assert "COLOUR" not in os.environ


def test_proxies_and_clusters_are_not_for_local_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "grpc_proxy", "NO_PROXY", "RAY_ADDRESS")
    for name in names:
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    inherited = Processes(tmp_path, {"SHADE": "dark"}).full_environment()
    assert not {*names} & inherited.keys()
    assert inherited["SHADE"] == "dark" and inherited["PATH"] == os.environ["PATH"]


def test_signals_wait_until_all_are_ended(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)  # ignored where a shell has started the tests in the background
    processes = Processes(tmp_path, {}, grace=0.3)
    process = processes.start("stubborn", [sys.executable, "-c", STUBBORN])
    wait_until_up(processes)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    processes.end()
    timer.join()
    assert process.popen.returncode == -9
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_log_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(UserError, match="logs/x.log: cannot write here"):
        Processes(tmp_path / "logs", {}).start("x", [sys.executable, "-c", ""])


def test_a_port_in_use_or_promised_is_not_free() -> None:
    first = free_port(())
    with socket.socket() as used:
        used.bind(("127.0.0.1", first))
        used.listen()
        second = free_port(())
        assert len({first, second, free_port([second])}) == 3
