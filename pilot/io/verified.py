"""Checks of files against recorded digests: small files are read each time, large ones once and then by a stamp.

A stamp is in `.verified/` beside the file, or in a folder that the caller chooses. It contains the sha256 found by a
full check, and the file's size, inode and times at that point. A file is read again if one of them has changed, or if
its stamp cannot be read. A stamp that cannot be written (a read-only source) is not an error: the process remembers it.
Each file has a separate stamp, written atomically, so that several processes can check the same files.

A file whose digest no other file records has a note beside it: `<name>.sha256`, in the format of `sha256sum`.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from pilot.errors import UserError
from pilot.io.atomic import damaged, read_json, remove, write_json, write_text
from pilot.io.digest import sha256_bytes, sha256_file
from pilot.io.remedy import remedy

FOLDER = ".verified"
MIN_STAMPED_BYTES = 64 << 20
"""Smallest size of a file that gets a stamp: a smaller one is read in a tenth of a second."""
_REMEMBERED: dict[str, tuple[dict[str, int], str]] = {}
"""State and sha256 of large files that this process has read, by path: nodes and servers live for many messages."""
MIN_AGE_SECONDS = 2.0
"""A file changed more recently than this gets no stamp: another change could leave its times the same."""


def digest_of(path: Path, stamps: Path | None = None) -> str:
    """Return the sha256 of a file, from its stamp if size and times match.

    Args:
        path: the file.
        stamps: the folder of its stamp; by default `.verified/` beside the file.

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        before = _stat(path)
        if before["size"] < MIN_STAMPED_BYTES:
            return sha256_file(path)
        state, found = _REMEMBERED.get(str(path.absolute()), ({}, ""))
        if state == before:
            return found
        name = f"{sha256_bytes(os.fsencode(path.absolute()))[:16]}-{path.name}.json"
        stamp = (stamps or path.parent / FOLDER) / name
        with contextlib.suppress(UserError):
            known = read_json(stamp, {"sha256": str, "file": dict})
            if known["file"] == before:
                return _remember(path, before, str(known["sha256"]))
        digest = sha256_file(path)
        unchanged = _stat(path) == before
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing. {remedy(path)}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). {remedy(path)}") from error
    if unchanged and time.time() - max(before["changed"], before["modified"]) / 1e9 > MIN_AGE_SECONDS:
        _remember(path, before, digest)
        with contextlib.suppress(UserError):
            write_json(stamp, {"sha256": digest, "file": before})
    return digest


def _remember(path: Path, state: dict[str, int], digest: str) -> str:
    _REMEMBERED[str(path.absolute())] = state, digest
    return digest


def check_digest(path: Path, expected: str) -> None:
    """Reject a file whose sha256 differs from the recorded one.

    Raises:
        UserError: the digest differs; the message names the file and the command that recreates it.
    """
    if digest_of(path) != expected:
        raise damaged(path, "its sha256 differs from the recorded one")


def write_noted(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file with `write`, then its note; a kill leaves either a true note or none.

    Raises:
        UserError: the folder cannot be written to.
    """
    remove(_note(path))
    write(path)
    write_text(_note(path), f"{sha256_file(path)}  {path.name}\n")


def check_note(path: Path) -> None:
    """Reject a file that differs from its note; without a note (older versions wrote none) nothing is compared.

    Raises:
        UserError: as `check_digest`.
    """
    if (note := _note(path)).is_file():
        check_digest(path, note.read_bytes()[:64].decode(errors="replace"))


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _stat(path: Path) -> dict[str, int]:
    """Read size, inode and times, which must be unchanged for a stamp to be valid."""
    state = path.stat()
    return {"size": state.st_size, "inode": state.st_ino, "modified": state.st_mtime_ns, "changed": state.st_ctime_ns}
