"""Advisory lock that lets one process at a time work in a folder, and that ends with its process.

The lock is `flock` on the hidden file `.<name>.lock` beside the folder, whose content identifies the holder. The system
releases it when the process ends, also after `kill -9`. Children do not inherit it: a new program does not inherit the
descriptor, and a fork closes it, so a lock never outlives the process that acquired it.
"""

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pilot.errors import UserError

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_held: set[int] = set()
"""File descriptors of the locks that this process holds."""


def _close_in_fork() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_fork)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which need not exist yet.

    If the file system does not support locks, print a warning and continue without one.

    Raises:
        UserError: another process holds it (the message has its id, machine and start), or the lock file cannot be
            created.
    """
    path = folder.absolute().parent / f".{folder.absolute().name}.lock"
    descriptor = _acquire(folder, path)
    if descriptor is None:
        yield
        return
    owner = os.getpid()
    try:
        _held.add(descriptor)
        _write_holder(descriptor)
        yield
    finally:
        if os.getpid() == owner:  # a forked child that gets here holds no lock
            _held.discard(descriptor)
            with suppress(OSError):
                path.unlink()  # before the release, so that no process locks a file about to be removed
            os.close(descriptor)


def _acquire(folder: Path, path: Path) -> int | None:
    """Return a file descriptor that holds the lock; None if the file system does not support locks."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(f"{folder}: cannot write here ({error.strerror}). Choose another folder.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same_file(descriptor, path):
                return descriptor
        except OSError as error:
            holder = _read_holder(descriptor)
            os.close(descriptor)
            if error.errno in _BUSY:
                raise UserError(
                    f"{folder}: in use by {holder}. Wait until it ends, or end it, then run the same command again."
                ) from error
            print(
                f"warning: {folder}: this file system does not support locks ({error.strerror}). Make sure that no "
                "other process uses this folder.", file=sys.stderr, flush=True,
            )  # fmt: skip
            return None
        os.close(descriptor)  # the holder removed the file after we opened it and before we locked it


def _is_same_file(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _write_holder(descriptor: int) -> None:
    """Write the holder into the lock file; only for messages, so a failure does not matter."""
    who = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(who).encode(), 0)


def _read_holder(descriptor: int) -> str:
    try:
        who = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process (the lock file does not identify it)"
