"""Starts a server (`fork_server_main.py`) and asks it for runs that are killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from ..small import Small

KILLED = -signal.SIGKILL


class ForkServer:
    """Runs of a small scenario, each in a child of a process that has everything loaded."""

    def __init__(self, small: Small, folder: Path, profile_text: str) -> None:
        profile = folder / "profile.yaml"
        profile.write_text(profile_text)
        command = [sys.executable, "-m", "tests.crashes.fork_server_main", str(small.scenario_file), str(profile)]
        self.process = subprocess.Popen(
            [*command, str(small.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=600)

    def train(self, target: Path, *prepare: object, after: float | None = None, method: str = "pilot") -> int:
        """Train or resume in `target`; the exit code, negative if a signal ended it."""
        assert self.process.stdin and self.process.stdout
        request = {"method": method, "target": str(target), "prepare": prepare, "after": after}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())
