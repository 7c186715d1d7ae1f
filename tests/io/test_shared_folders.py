"""CIFS and bucket mounts refuse `fsync` of a folder and `chmod`; neither stops a writer. Contents are another thing."""

import errno
import os
import stat
from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.io.atomic import set_mode, write_bytes


def fail_fsync(monkeypatch: pytest.MonkeyPatch, of_folders: bool, number: int) -> None:
    """Let `fsync` of folders, or of files, fail with an error."""
    fsync = os.fsync

    def flush(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) is of_folders:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.ENOSYS])
def test_folder_that_cannot_be_flushed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fail_fsync(monkeypatch, True, number)
    write_bytes(tmp_path / "a.json", b"x")
    assert (tmp_path / "a.json").read_bytes() == b"x"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_folder_on_a_failing_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fail_fsync(monkeypatch, True, number)
    with pytest.raises(UserError, match=r"disk error \(.*\)\. Run the same command again"):
        write_bytes(tmp_path / "a.json", b"x")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_content_that_cannot_be_flushed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    fail_fsync(monkeypatch, False, number)
    with pytest.raises(UserError, match=r"a\.json: writing failed .* The old file is unchanged"):
        write_bytes(tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").read_bytes() == b"old"


def test_modes_that_cannot_be_set_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, mode: int, **_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    write_bytes(tmp_path / "a.json", b"x")
    set_mode(tmp_path, 0o755)
    assert (tmp_path / "a.json").read_bytes() == b"x"
