"""A simulation's process: what it answers, how it fails, and that nothing of it stays. Ray itself is not started."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pilot.errors import UserError
from pilot.federation.flower import ray_process
from pilot.federation.flower.ray_process import LONGEST_FOLDER, PREFIX, SESSION, _DaemonMonitor, run_in_process
from pilot.io.processes import Processes

HEAD = "import os, signal, sys, time; from pilot.federation.flower.ray_process import run_and_exit, send_result\n"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")


def run(
    monkeypatch: pytest.MonkeyPatch, folder: Path, body: str, argument: Any = None, heard: list[Any] | None = None
) -> tuple[Any, list[Any]]:
    """Run a module with this function body, told `argument, work, tell`; its result and messages (also in `heard`)."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    (folder / "made_up.py").write_text(
        f"{HEAD}def run(argument, work, tell):\n{lines}\nrun_and_exit(sys.argv[1], run)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
    heard = [] if heard is None else heard
    log = folder / "logs/made-up.log"
    return run_in_process("made_up", argument, log, lambda kind, value: heard.append((kind, value))), heard


def children() -> list[str]:
    """Command lines of what these tests started and what still runs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "made_up" in command or "sleep 61" in command:
            found.append(command)
    return found


def test_result_messages_and_no_wait_for_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        "import subprocess, threading\n"
        "threading.Thread(target=time.sleep, args=(61,)).start()\n"
        "subprocess.Popen(['sleep', '61'], start_new_session=True)\n"
        "tell('progress', argument)\n"
        "send_result(lambda: [os.environ.get('RAY_ADDRESS'), len(str(work))], tell)\n"
        "time.sleep(61)"
    )
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    began = time.monotonic()
    (address, length), heard = run(monkeypatch, tmp_path, body, [1, 48])
    assert heard == [("progress", [1, 48])] and address is None
    assert length + len(f"/{SESSION}") <= 107, "room for Ray's sockets"
    assert children() == [] and time.monotonic() - began < 30


FAILURES = {
    "from pilot.errors import UserError; raise UserError('file: field, what to do')": "file: field, what to do",
    "try:\n    1 / 0\nexcept Exception as error:\n    raise RuntimeError('Simulation crashed.') from error": (
        r"simulation failed: ZeroDivisionError: division by zero\. The log is .*logs/made-up\.log"
    ),
    "print('OSError: no socket', flush=True); os._exit(7)": "exit code 7: OSError: no socket. The log is",
    "os.kill(os.getpid(), signal.SIGKILL)": "exit code -9: no output. The system kills processes in this way",
    "import subprocess\nprogram = subprocess.Popen(['/bin/sh', '-c', 'exec -a /ray/gcs/gcs_server\\ x sleep 2'], "
    "executable='/bin/bash')\nprogram.wait(); time.sleep(61)": "Ray's gcs_server process died",
    "import subprocess\nprogram = subprocess.Popen(['/bin/sh', '-c', 'exec -a /ray/gcs/gcs_server\\ x sleep 2'], "
    "executable='/bin/bash')\nprogram.wait(); time.sleep(0.3); raise ValueError('why')": "failed: ValueError: why",
}


@pytest.mark.parametrize("body", FAILURES)
@pytest.mark.slow
def test_a_failure_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    monkeypatch.setattr(ray_process, "SECONDS_BETWEEN_CHECKS", 0.2)
    monkeypatch.setattr(ray_process, "SHUTDOWN_SECONDS", 0.5)
    with pytest.raises(UserError, match=FAILURES[body]) as caught:
        run(monkeypatch, tmp_path, body)
    assert "\n" not in str(caught.value) and children() == []


def test_a_fork_of_a_daemon_may_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray_process, "SECONDS_BETWEEN_CHECKS", 0.0)
    monkeypatch.setattr(ray_process, "SHUTDOWN_SECONDS", 0.01)
    there = {1: "/ray/raylet/raylet x", 2: "/ray/raylet/raylet x", 3: "/ray/gcs/gcs_server x"}
    daemons = _DaemonMonitor(Processes(tmp_path, {}))
    monkeypatch.setattr(daemons.processes, "running", lambda: there)
    assert daemons.dead() == ""
    del there[2]
    time.sleep(0.02)
    assert daemons.dead() == ""
    del there[1]
    time.sleep(0.02)
    assert daemons.dead() == "raylet"


@pytest.mark.slow
def test_warnings_after_a_daemons_death_stay_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are its consequences: tasks that Ray has lost, which nothing will answer."""
    monkeypatch.setattr(ray_process, "SECONDS_BETWEEN_CHECKS", 0.2)
    monkeypatch.setattr(ray_process, "SHUTDOWN_SECONDS", 2.0)
    body = (
        "import subprocess\nprogram = subprocess.Popen(['/bin/sh', '-c', 'exec -a /ray/raylet/raylet\\ x sleep 2'], "
        "executable='/bin/bash')\ntime.sleep(1); tell('warning', 'alive')\nprogram.wait(); tell('warning', 'lost')\n"
        "time.sleep(61)"
    )
    heard: list[Any] = []
    with pytest.raises(UserError, match="Ray's raylet process died"):
        run(monkeypatch, tmp_path, body, heard=heard)
    assert heard == [("warning", "alive")]


def test_sigterm_to_it_is_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for body in ("os.kill(os.getpid(), signal.SIGTERM)", "sys.exit(15)"):  # by itself, and through Ray's handler
        with pytest.raises(SystemExit) as caught:
            run(monkeypatch, tmp_path, body)
        assert caught.value.code == 143


@LINUX
def test_ctrl_c_ends_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        "import subprocess\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen(['sleep', '61'], start_new_session=True)\ntime.sleep(61)"
    )

    def interrupt() -> None:
        while "sleep 61" not in " ".join(children()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(monkeypatch, tmp_path, body)
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    assert children() == []


def test_a_long_folder_is_replaced_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * LONGEST_FOLDER)
    monkeypatch.setattr(ray_process.tempfile, "gettempdir", lambda: str(long))
    with ray_process._short_folder() as folder:
        assert folder.parent == Path("/tmp") and folder.name.startswith(PREFIX)
    assert not folder.exists()
    monkeypatch.setattr(ray_process.os, "access", lambda path, mode: str(path) != "/tmp")
    with pytest.raises(UserError, match=rf"TMPDIR: .* is too long .* at most {LONGEST_FOLDER} bytes"):
        with ray_process._short_folder():
            pass
