"""Contents in a temporary file: stored once, found by digest, and gone with the process."""

import errno
import os
from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.io.digest import sha256_bytes
from pilot.io.spool import Spool


def test_contents_are_on_disk_alone(tmp_path: Path) -> None:
    with Spool(tmp_path / "new") as spool:
        digests = [spool.add(content) for content in (b"one", b"", b"three", b"one")]
        assert digests == [sha256_bytes(content) for content in (b"one", b"", b"three", b"one")]
        assert [spool[digest] for digest in digests] == [b"one", b"", b"three", b"one"]
        assert list(spool) == digests[:3] and len(spool) == 3
        assert digests[0] in spool and "0" not in spool
        assert list((tmp_path / "new").iterdir()) == [], "the file has no name, so a killed process leaves none"
        with pytest.raises(KeyError):
            spool["0"]


def test_short_writes_and_reads_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda file, data, place: write(file, bytes(data[:2]), place))
    monkeypatch.setattr(os, "pread", lambda file, length, place: read(file, min(length, 3), place))
    with Spool(tmp_path) as spool:
        first, second = spool.add(b"abcdefg"), spool.add(b"hijkl")
        assert spool[first] == b"abcdefg" and spool[second] == b"hijkl"


def test_a_full_disk_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with Spool(tmp_path) as spool, pytest.raises(UserError, match="No space left on device.*Free disk space"):
        spool.add(b"one")
    with pytest.raises(UserError, match="cannot write here"):
        (tmp_path / "file").write_text("")
        Spool(tmp_path / "file")
