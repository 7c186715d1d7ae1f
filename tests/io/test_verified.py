"""Digests on record against files: small ones are read each time, large ones once and then known by a stamp."""

import os
import time
from pathlib import Path

import pytest

from pilot.errors import UserError
from pilot.io import verified
from pilot.io.digest import sha256_bytes
from pilot.io.sealed import read_sealed, write_sealed
from pilot.io.verified import check_digest, digest_of

WAS, IS = b"w" * 100, b"i" * 100


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large, made an hour ago."""
    monkeypatch.setattr(verified, "MIN_STAMPED_BYTES", 50)
    monkeypatch.setattr(verified, "MIN_AGE_SECONDS", -1.0)
    path = tmp_path / "shard.npy"
    path.write_bytes(WAS)
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were read in full."""
    seen: list[Path] = []
    whole = verified.sha256_file

    def reading(path: Path) -> str:
        seen.append(path)
        return whole(path)

    monkeypatch.setattr(verified, "sha256_file", reading)
    return seen


def test_large_file_is_read_once(large: Path, read: list[Path]) -> None:
    for _ in range(3):
        check_digest(large, sha256_bytes(WAS))
    assert read == [large] and len(list((large.parent / ".verified").iterdir())) == 1


@pytest.mark.parametrize("keep_time", [True, False])
def test_changed_file_is_read_again(large: Path, read: list[Path], keep_time: bool) -> None:
    """Also where its size is the same and its time of modification was set back."""
    check_digest(large, sha256_bytes(WAS))
    state = large.stat()
    time.sleep(0.02)  # the clock of file times ticks every few milliseconds
    large.write_bytes(IS)
    if keep_time:
        os.utime(large, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(UserError, match=r"shard\.npy: damaged .*its sha256 differs from the recorded one"):
        check_digest(large, sha256_bytes(WAS))
    assert read == [large, large]


def test_small_and_young_files_get_no_stamp(large: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "MIN_AGE_SECONDS", 60.0)
    assert digest_of(large) == digest_of(large) == sha256_bytes(WAS)
    monkeypatch.setattr(verified, "MIN_STAMPED_BYTES", 1000)
    digest_of(large)
    assert read == [large] * 3 and [path.name for path in large.parent.iterdir()] == ["shard.npy"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"sha256": "x", "file": {}}'])
def test_damaged_stamp_is_no_stamp(large: Path, read: list[Path], content: bytes) -> None:
    digest_of(large)
    (stamp,) = (large.parent / ".verified").iterdir()
    stamp.write_bytes(content)
    verified._REMEMBERED.clear()  # as in another process
    assert digest_of(large) == sha256_bytes(WAS) and read == [large, large]


def test_source_that_cannot_be_written_is_read_once_by_each_process(large: Path, read: list[Path]) -> None:
    (large.parent / ".verified").write_text("a file where a folder belongs")
    assert digest_of(large) == digest_of(large) == sha256_bytes(WAS) and read == [large]
    verified._REMEMBERED.clear()
    stamps = large.parent / "stamps"
    assert digest_of(large, stamps) == sha256_bytes(WAS) and read == [large, large]
    verified._REMEMBERED.clear()
    assert digest_of(large, stamps) == sha256_bytes(WAS) and read == [large, large]


def test_another_file_of_the_same_size_and_times_is_read(large: Path, read: list[Path]) -> None:
    """Renamed over the first one, as by a new download; the inode and the time of the change of its name differ."""
    state = large.stat()
    digest_of(large)
    other = large.with_name("other")
    other.write_bytes(IS)
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    os.replace(other, large)
    assert digest_of(large) == sha256_bytes(IS) and read == [large, large]


def test_missing_file_is_a_message(tmp_path: Path) -> None:
    path = tmp_path / "tiny/small/features/features-00000.npy"
    repair = "Run `pilot-bench backbone features --scenario small --profile tiny`."
    with pytest.raises(UserError, match=f"00000.npy: missing. {repair}"):
        digest_of(path)


def test_seal_finds_a_flipped_digit(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    write_sealed(path, {"rows": {"a": 1, "b": 2}})
    assert read_sealed(path, {"rows": dict}) == {"rows": {"a": 1, "b": 2}}
    path.write_text(path.read_text().replace("1,", "3,"))
    with pytest.raises(UserError, match=r"index\.json: damaged .*its digest differs from the recorded one"):
        read_sealed(path)
