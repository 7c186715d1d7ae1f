"""A run that is killed, or whose disk fails, at every kind of moment: it resumes to the bytes of an undisturbed run."""

import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from pilot.federation.checkpoint import load_progress

from ..marks import few_of
from ..small import PROFILE, Small, contents
from .fork_server import KILLED, ForkServer
from .fork_server_main import FINISHED, USER_ERROR

pytestmark = pytest.mark.slow
THREE_ROUNDS = PROFILE.replace("rounds: 2", "rounds: 3")
MOMENTS = ("mkdtemp", "write", "fsync", "replace", "clean", "sync_folder")
BEFORE_IT_COUNTS = MOMENTS[:4]
FILES = (
    "config.json", "participation.json", "clients/3/r1p0.safetensors", "clients/5/r1p1.safetensors",
    "clients/0/r2p0.sha256", "clients/2/r2p0.safetensors", "round-1/server.safetensors", "round-1/history.json",
    "round-1/complete.json", "round-2/server.sha256", "round-2/complete.json", "round-3/complete.json",
    "rounds.jsonl", "timing.json", "ledger.json", "manifest.json",
)  # fmt: skip
KILLS = (("clients/3/r1p0.safetensors", "write"), ("round-2/complete.json", "replace"))
"""A client's file and the server's, each at another moment; the rest of the grid is exhaustive."""
FULL_DISKS = (("round-2/complete.json", "replace"),)
WRITTEN = ("clients/3/r2p0.safetensors", "round-2/server.safetensors", "round-2/complete.json")
KEPT = ("3/unfinished-r2p0.json", "5/unfinished-r1p1-2.safetensors")


@pytest.fixture(scope="module")
def server(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """One for all tests."""
    with ForkServer(small, tmp_path_factory.mktemp("server"), THREE_ROUNDS) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What every run must end as."""
    target = tmp_path_factory.mktemp("undisturbed")
    assert server.train(target) == FINISHED
    return contents(target)


@pytest.mark.parametrize(("name", "moment"), few_of(KILLS, product(FILES, MOMENTS)))
def test_killed_while_writing(
    server: ForkServer, undisturbed: dict[str, bytes], tmp_path: Path, name: str, moment: str
) -> None:
    """Each file of a run, at each step of writing it."""
    assert server.train(tmp_path, "die", name, moment) == KILLED
    torn = [path.name for path in tmp_path.rglob(".*")]
    assert bool(torn) == (moment in ("write", "fsync", "replace", "clean")), torn
    assert server.train(tmp_path) == FINISHED
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize("step", few_of([47], [2, 9, 19, 30]))
def test_killed_in_a_training_step(
    server: ForkServer, undisturbed: dict[str, bytes], tmp_path: Path, step: int
) -> None:
    """Of 54 steps: in stage 1 (6 steps), in round 1's stage 2 (12), and in later rounds (18 each)."""
    assert server.train(tmp_path, "step", step) == KILLED
    assert server.train(tmp_path) == FINISHED
    assert contents(tmp_path) == undisturbed


def test_killed_before_an_old_round_is_removed(
    server: ForkServer, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """The last round is complete and the first still there: nothing is left to train, but something to remove."""
    assert server.train(tmp_path, "remove", "round-1") == KILLED
    assert (tmp_path / "checkpoint/round-1").is_dir() and (tmp_path / "checkpoint/round-3/complete.json").is_file()
    assert server.train(tmp_path) == FINISHED
    assert contents(tmp_path) == undisturbed


@pytest.mark.exhaustive
def test_killed_again_and_again_at_random_moments(
    server: ForkServer, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """One run, killed at random times until it comes through; every resume stands on what the last one left."""
    clock, codes = random.Random(7), [KILLED]
    while codes[-1] == KILLED and len(codes) < 60:
        codes.append(server.train(tmp_path, after=clock.uniform(0.1, 3.0)))
    if codes[-1] == KILLED:  # a very slow machine
        codes.append(server.train(tmp_path))
    assert codes[-1] == FINISHED and codes.count(KILLED) > 1
    assert contents(tmp_path) == undisturbed


@pytest.fixture(scope="module")
def keeping(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ForkServer, dict[str, bytes]]]:
    """Runs that keep every phase after every step, and what they must end as."""
    with ForkServer(small, tmp_path_factory.mktemp("keeping"), f"{THREE_ROUNDS}checkpoint_minutes: 0\n") as made:
        target = tmp_path_factory.mktemp("kept")
        assert made.train(target) == FINISHED
        yield made, contents(target)


@pytest.mark.parametrize(
    "prepare",
    few_of(
        [["die", KEPT[1], "write"]],
        [["step", 2], ["step", 9], ["step", 30], *(["die", *each] for each in product(KEPT, MOMENTS))],
    ),
)
def test_killed_in_a_phase_that_is_kept(
    keeping: tuple[ForkServer, dict[str, bytes]], undisturbed: dict[str, bytes], tmp_path: Path, prepare: list[object]
) -> None:
    """In a step, or while the phase is being kept; the same weights as without keeping anything."""
    server, end = keeping
    assert server.train(tmp_path, *prepare) == KILLED
    assert server.train(tmp_path) == FINISHED
    assert contents(tmp_path) == end
    name = "checkpoint/round-3/server.safetensors"
    assert end[name] == undisturbed[name]


@pytest.mark.parametrize(("name", "moment"), few_of(FULL_DISKS, product(WRITTEN, BEFORE_IT_COUNTS)))
def test_full_disk_leaves_the_old_state_readable(
    server: ForkServer, undisturbed: dict[str, bytes], tmp_path: Path, name: str, moment: str
) -> None:
    """A write, fsync or rename that fails ends the run with a message; round 1 stays, and the run resumes."""
    assert server.train(tmp_path, "full", name, moment) == USER_ERROR
    progress = load_progress(tmp_path / "checkpoint", None)
    assert progress is not None and progress.round_number == 1
    assert not list(tmp_path.rglob(".*"))
    assert server.train(tmp_path) == FINISHED
    assert contents(tmp_path) == undisturbed


def test_folder_that_cannot_be_written(server: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder belongs")
    assert server.train(tmp_path / "run") == USER_ERROR
    assert (tmp_path / "run").read_text() == "a file where the folder belongs"
