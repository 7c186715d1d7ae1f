"""What is renamed into place is on disk before, and what writers leave when they are killed is swept away."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pilot.errors import UserError
from pilot.io.atomic import remove_temporary_files, replace_file, write_bytes
from pilot.io.checkpoint import save_state
from pilot.report.tensorboard import _write as write_events


def renaming(path: Path) -> None:
    """As libraries do that replace files in one step themselves."""
    other = path.with_name(".tmp3fQz")
    other.write_bytes(b"payload")
    other.replace(path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: write_bytes(path, b"payload"),
    "state": lambda path: save_state(path, {"a": torch.ones(300)}),
    "events": lambda path: replace_file(path, lambda part: write_events(part, [(1, "loss", 2.0)])),
    "renaming": lambda path: replace_file(path, renaming),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("old", [False, True])
def test_flushed_are_the_file_that_ends_there_and_then_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, old: bool
) -> None:
    """A library that renames a file of its own over the one it is given must not leave the real one unflushed."""
    path = tmp_path / "target.safetensors"
    if old:
        path.write_text("old")
    done: list[tuple[str, int, int]] = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor: int) -> None:
        state = os.fstat(descriptor)
        done.append(("fsync", state.st_ino, state.st_size))
        fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        if Path(target) == path:
            done.append(("rename", os.stat(source).st_ino, os.stat(source).st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    WRITERS[writer](path)
    there, folder = path.stat(), tmp_path.stat()
    assert done[:2] == [("fsync", there.st_ino, there.st_size), ("rename", there.st_ino, there.st_size)]
    assert done[2][:2] == ("fsync", folder.st_ino)
    assert not list(tmp_path.glob(".*"))


def test_failed_writer_leaves_nothing_beside_the_old_file(tmp_path: Path) -> None:
    """Not even what it wrote under names of its own."""
    path = tmp_path / "kept.json"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        part.with_name(".tmpAbCdEf").write_text("another half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"kept.json: writing failed \(No space left on device\)"):
        replace_file(path, fail)
    with pytest.raises(KeyboardInterrupt):
        replace_file(path, interrupted)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("kept.json", "old")]


def interrupted(part: Path) -> None:
    """Ctrl-C in the middle of it."""
    part.write_text("half")
    raise KeyboardInterrupt


def test_sweep_takes_what_was_torn_and_nothing_else(tmp_path: Path) -> None:
    """Folders as they are left today, and files as versions before 2026-11-24 left them."""
    for name in ("clients/2/.r1p0.safetensors.x1.part/.tmpfL4DW0", "a/.b.json.y2.part/content", "a/.old.json.z3.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("torn")
    (tmp_path / "clients/2/r1p0.safetensors").write_text("whole")
    (tmp_path / "a/one.part").write_text("a user's")
    remove_temporary_files(tmp_path)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["a/one.part", "clients/2/r1p0.safetensors"]
    assert not list(tmp_path.rglob(".*"))
    remove_temporary_files(tmp_path / "not there")
