"""Files checked against the digests on record: small ones each time, large ones once and then by a stamp.

A stamp lies in `.verified/` beside the file, or where the caller says. It holds the sha256 that a full check found and
the file's size and times then. A file whose size or times are others is read again; a stamp that cannot be written (a
read-only source) or read is no reason to stop, only one to read the file again. Each file has a stamp of its own, in
one atomic write, so that several processes may check the same files.
"""

import contextlib
import os
import time
from pathlib import Path

from pilot.errors import UserError
from pilot.io.atomic import damaged, read_json, write_json
from pilot.io.digest import sha256_bytes, sha256_file
from pilot.io.remedy import remedy

FOLDER = ".verified"
LARGE = 64 << 20
"""Bytes from which on a file has a stamp: reading fewer takes a tenth of a second."""
YOUNG_SECONDS = 2.0
"""A file changed less long ago gets no stamp: another change could leave its times as they are."""


def digest_of(path: Path, stamps: Path | None = None) -> str:
    """The sha256 of a file, from its stamp where that is of this size and these times.

    Args:
        path: the file.
        stamps: the folder of its stamp; `.verified/` beside it by default.

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        before = _look(path)
        if before["size"] < LARGE:
            return sha256_file(path)
        name = f"{sha256_bytes(os.fsencode(path.absolute()))[:16]}-{path.name}.json"
        stamp = (stamps or path.parent / FOLDER) / name
        with contextlib.suppress(UserError):
            known = read_json(stamp, {"sha256": str, "file": dict})
            if known["file"] == before:
                return str(known["sha256"])
        digest = sha256_file(path)
        unchanged = _look(path) == before
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing. {remedy(path)}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). {remedy(path)}") from error
    if unchanged and time.time() - max(before["changed"], before["modified"]) / 1e9 > YOUNG_SECONDS:
        with contextlib.suppress(UserError):
            write_json(stamp, {"sha256": digest, "file": before})
    return digest


def check_digest(path: Path, expected: str, stamps: Path | None = None) -> None:
    """Refuse a file whose sha256 is not the recorded one; `stamps` as in `digest_of`.

    Raises:
        UserError: names the file and what makes it again.
    """
    if digest_of(path, stamps) != expected:
        raise damaged(path, "its sha256 is not the recorded one")


def _look(path: Path) -> dict[str, int]:
    """Read size and times, which must stay the same for a stamp to hold."""
    state = path.stat()
    return {"size": state.st_size, "modified": state.st_mtime_ns, "changed": state.st_ctime_ns}
