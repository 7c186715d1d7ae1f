"""One process in a run's folder: the second is refused and told who the first is, whatever started or ended it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.io.lock import locked

HOLD = "import sys, pathlib, time; from pilot.io.lock import locked\nwith locked(pathlib.Path(sys.argv[1])): "


def start(folder: Path, rest: str) -> "subprocess.Popen[str]":
    """A process of its own that takes the lock and says so."""
    command = [sys.executable, "-c", f"{HOLD}print('held', flush=True); {rest}", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    """`kill -9` as after Snakemake's death: nothing is left to be cleaned by hand."""
    run = tmp_path / "runs/pilot/seed0"
    first = start(run, "time.sleep(60)")
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    try:
        with pytest.raises(UserError) as refusal, locked(run):
            pass
        said = str(refusal.value)
        assert f"seed0: in use by process {first.pid} on {os.uname().nodename} since 20" in said
        assert "Wait until it ends, or end it" in said
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
    with locked(run), pytest.raises(UserError, match=f"process {os.getpid()} on"), locked(run):
        pass
    with locked(run):
        pass
    assert not list(run.parent.iterdir())


def test_children_do_not_hold_it(tmp_path: Path) -> None:
    """Neither a program that is started nor a fork keeps a run's folder locked after its trainer has ended."""
    with locked(tmp_path / "run"):
        program = subprocess.Popen(["sleep", "60"], close_fds=False)
        fork = os.fork()
        if fork == 0:
            signal.pause()
    try:
        with locked(tmp_path / "run"):
            pass
    finally:
        program.kill()
        program.wait()
        os.kill(fork, signal.SIGKILL)
        os.waitpid(fork, 0)


def test_without_locks_a_warning_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "run"):
        pass
    assert "run: this file system does not support locks (No locks available)." in capsys.readouterr().err


def test_unwritable_folder_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"file/runs/seed0: cannot write here \(Not a directory\)"),
        locked(tmp_path / "file/runs/seed0"),
    ):
        pass
