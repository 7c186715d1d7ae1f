"""`pilot-bench bench data` at toy size (docs/notes/data-at-full-size.md): what it generates, measures and refuses."""

import io
import json
import shutil
import sys
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pilot.bench.scale.command import CommandCost, measure_command
from pilot.bench.scale.data import QUICK, STAGES, as_text, bench_data
from pilot.bench.scale.pictures import NUM_PICTURES, image_file
from pilot.errors import UserError

from ..command_line import call
from ..small import quiet

Usage = namedtuple("Usage", "total used free")
MIB = 2**20
HUNGRY = f"""
import mmap, time
open("written", "wb").write(bytes(8 * {MIB}))
held = bytearray(b"x") * (64 * {MIB})
with open("written", "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    touched = [pages[place] for place in range(0, len(pages), 4096)]
    time.sleep(0.3)
"""


def stage_of(command: Sequence[str]) -> str:
    """Name of the stage that a command of the bench runs."""
    return " ".join(command[3 : command.index("--scenario")])


def in_this_process(command: Sequence[str], folder: Path) -> CommandCost:
    """Run a stage here; its memory is said to be 1,000 bytes and 10 per image, its file-backed part 7 bytes."""
    done = call(*command[3:])
    assert done.returncode == 0, done.stderr
    number = int(Path(command[command.index("--scenario") + 1]).stem.rpartition("-")[2])
    return CommandCost(1.5, 1.0, 1000 + 10 * number, 900 - number, 7, 50)


def test_images_are_large_and_no_two_files_are_equal() -> None:
    first, again, other = (image_file(number, 640, 480) for number in (3, 3 + NUM_PICTURES, 4))
    assert first == image_file(3, 640, 480) and first != again
    sizes = [len(content) for content in (first, again, other)]
    assert sizes[0] == sizes[1] and all(120_000 < size < 140_000 for size in sizes)
    opened = [Image.open(io.BytesIO(content)) for content in (first, again, other)]
    assert all((image.format, image.mode, image.size) == ("JPEG", "RGB", (640, 480)) for image in opened)
    pixels = [np.asarray(image) for image in opened]
    assert np.array_equal(pixels[0], pixels[1]) and not np.array_equal(pixels[0], pixels[2])


def test_all_stages_at_all_sizes(tmp_path: Path) -> None:
    """The commands that users run, with made-up costs: a slope of 10 bytes, 901,000 bytes at 90,000 images."""
    seen = list[tuple[int, int]]()
    report = bench_data(QUICK, "embedded", tmp_path, lambda *done: seen.append(done), in_this_process)
    assert list(tmp_path.iterdir()) == [], "temporary data are removed"
    assert [(row["stage"], row["images"]) for row in report["rows"]] == [
        (stage, number) for number in (6, 12) for stage in STAGES
    ]
    assert all(row["kept_bytes"] > 0 for row in report["rows"])
    assert report["fits"].keys() == STAGES.keys()
    for fit in report["fits"].values():
        assert fit["peak_bytes"] == pytest.approx({"slope": 10, "full_size": 901_000})
        assert fit["anonymous_bytes"] == pytest.approx({"slope": -1, "full_size": 900 - 90_000})
        assert fit["file_bytes"] == pytest.approx({"slope": 0, "full_size": 7}, abs=1e-6)
    assert seen[0] == (1, 12 + 3 * 18) and seen[-1] == (66, 66), "12 images written, 18 through three stages"
    text = as_text(report).splitlines()
    assert text[2].split()[:9] == ["data", "build", "6", "1.5", "1.0", "0.0", "0.0", "0.0", "0.0"]
    assert text[-3].split()[:4] == ["backbone", "features", "10", "1"]
    assert text[-1].startswith("machine: processor")


def test_memory_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB on the heap, a mapped file of 8 MiB that was written before; Python itself takes less than 32 MiB."""
    monkeypatch.chdir(tmp_path)
    plain = measure_command((sys.executable, "-c", "import time; time.sleep(0.3)"), tmp_path / "plain")
    found = measure_command((sys.executable, "-c", HUNGRY), tmp_path / "hungry")
    assert 64 * MIB < found.anonymous_bytes - plain.anonymous_bytes + MIB < 70 * MIB
    assert 8 * MIB < found.file_bytes - plain.file_bytes + MIB < 12 * MIB
    assert 72 * MIB < found.peak_bytes - plain.peak_bytes + 2 * MIB < 80 * MIB
    assert 8 * MIB <= found.written_bytes < 9 * MIB and plain.written_bytes < MIB
    assert 0 < found.cpu_seconds < found.seconds and found.seconds > 0.3


def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; print('one'); sys.exit('the last line')")
    with pytest.raises(UserError, match=r"failed \(exit status 1\): the last line$"):
        measure_command(command, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "5000"], "--images: expected two or more different numbers of at least 5, got 5000."),
        (["--images", "9", "--images", "9"], "got 9, 9. Repeat the option for every number."),
        (["--images", "4", "--images", "9"], "of at least 5, got 4, 9."),
        (["--profile", "nowhere"], "profile: "),
        (["--work", __file__], f"--work {__file__}: cannot write here"),
    ],
)
def test_what_is_refused(options: list[str], message: str) -> None:
    done = call("bench", "data", "--quick", *options)
    assert (done.returncode, done.stdout) == (2, "") and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_disk_that_is_too_small_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(1000, 900, 100))
    with pytest.raises(UserError, match=r"12 images and copies of them take .* GB are free. Choose another --work"):
        bench_data(QUICK, "embedded", tmp_path, quiet, in_this_process)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.exhaustive
def test_the_command_in_processes(tmp_path: Path) -> None:
    """A process of PyTorch holds more than one that splits data; all hold libraries, and the parts are at most all."""
    done = call("bench", "data", "--quick", "--work", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(tmp_path.iterdir()) == [] and report["profile"] == "embedded"
    for row in report["rows"]:
        parts = row["anonymous_bytes"], row["file_bytes"]
        assert 50 * MIB < max(parts) < row["peak_bytes"] <= 1.05 * sum(parts)
    build, partition, features = report["rows"][:3]
    assert features["peak_bytes"] > max(build["peak_bytes"], partition["peak_bytes"])
