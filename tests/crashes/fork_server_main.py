"""A process that has imported everything and trained nothing, and forks a child for every run it is asked for.

A process that has trained must not be forked (its threads do not come along), and one that starts anew spends seconds
on imports. Reads one JSON request per line, `{"method", "target", "prepare", "after"}`; writes the exit code of each.
"""

import errno
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pilot.federation.training as training
from pilot.config.load import load_profile, load_scenario
from pilot.errors import UserError
from pilot.federation.phase_run import PhaseRun
from pilot.federation.spec import RunSpec
from pilot.io import atomic

FINISHED, USER_ERROR, OTHER_ERROR = 0, 2, 3


def die() -> None:
    """As `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    """As a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def at(name: str, moment: str, act: Callable[[], None]) -> None:
    """Call `act` just before the writer of a file that ends in `name` does `moment`."""
    original, writing = atomic.replace_file, [False]
    places: dict[str, tuple[Any, str]] = {
        "mkdtemp": (atomic.tempfile, "mkdtemp"), "fsync": (os, "fsync"), "replace": (os, "replace"),
        "clean": (atomic.shutil, "rmtree"), "sync_folder": (atomic, "_sync"),
    }  # fmt: skip
    place, attribute = places[moment]
    function = getattr(place, attribute)

    def acting(*arguments: Any, **options: Any) -> Any:
        if writing[0] and (moment != "sync_folder" or arguments[0].is_dir()):
            act()
        return function(*arguments, **options)

    def replace_file(path: Path, fill: Callable[[Path], Any]) -> Any:
        writing[0] = path.as_posix().endswith(name)
        try:
            return original(path, fill)
        finally:
            writing[0] = False

    setattr(place, attribute, acting)
    atomic.replace_file = replace_file


def while_filling(name: str, act: Callable[[], None]) -> None:
    """Die of, or refuse, the second byte that whoever fills a file that ends in `name` writes, in whatever language."""
    original, unlimited = atomic.replace_file, resource.getrlimit(resource.RLIMIT_FSIZE)
    if act is die:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it: the write fails, as on a full disk

    def replace_file(path: Path, fill: Callable[[Path], Any]) -> Any:
        def limited(part: Path) -> Any:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, unlimited[1]))
            try:
                return fill(part)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)

        return original(path, limited if path.as_posix().endswith(name) else fill)

    atomic.replace_file = replace_file


def in_step(number: int) -> None:
    """Die in the optimiser step of that number, counted over all clients from 1."""
    loss, count = PhaseRun._loss, [0]

    def counting(*arguments: Any) -> Any:
        count[0] += 1
        if count[0] == number:
            die()
        return loss(*arguments)

    PhaseRun._loss = counting  # type: ignore[method-assign]


def at_removal(name: str) -> None:
    """Die just before the folder of that name is removed."""
    original = atomic.shutil.rmtree

    def rmtree(path: Path, **options: Any) -> None:
        if path.name == name and path.exists():
            die()
        original(path, **options)

    atomic.shutil.rmtree = rmtree  # type: ignore[assignment]


def child(spec: RunSpec, scenario_dir: Path, request: dict[str, Any]) -> int:
    """Train or resume; the exit code says how it ended."""
    spec = replace(spec, method=request["method"])
    prepare = request["prepare"]
    if prepare and prepare[0] == "step":
        in_step(prepare[1])
    elif prepare and prepare[0] == "remove":
        at_removal(prepare[1])
    elif prepare and prepare[2] == "write":
        while_filling(prepare[1], {"die": die, "full": full}[prepare[0]])
    elif prepare:
        at(prepare[1], prepare[2], {"die": die, "full": full}[prepare[0]])
    try:
        training.train_run(spec, scenario_dir, Path(request["target"]), True, lambda done, total: None)
    except UserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    return FINISHED


def main() -> None:
    """Serve requests until the input ends."""
    scenario, profile, scenario_dir = sys.argv[1:4]
    spec = RunSpec(load_scenario(scenario), load_profile(profile), "pilot", 0)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = OTHER_ERROR
            try:
                code = child(spec, Path(scenario_dir), request)
            finally:
                os._exit(code)
        if request["after"] is not None:
            time.sleep(request["after"])
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == -signal.SIGXFSZ and request["prepare"]:  # as asked: see `while_filling`
            code = -signal.SIGKILL
        print(json.dumps(code), flush=True)


if __name__ == "__main__":
    main()
