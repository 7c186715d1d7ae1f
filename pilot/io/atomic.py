"""Files that are either complete or absent.

Every writer fills a file in a temporary folder beside the target, flushes it to disk, renames it over the target and
flushes the target's folder. A reader therefore sees the old content or the new content, never part of it.
"""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pilot.errors import UserError
from pilot.io.remedy import remedy

_T = TypeVar("_T")
FieldType = type | tuple[type, ...]
"""Type or types of a field, as accepted by `isinstance`."""
_PART = ".part"
"""Suffix of temporary folders' names, which start with a dot."""
_LINE = json.JSONEncoder(sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _read_umask() -> int:
    """Read the umask, which requires setting it for all threads: do this once, before any are started."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


_MODE = 0o666 & ~_read_umask()
"""Permissions of new files; those of temporary files would allow only their owner to read them."""


def replace_file(path: Path, fill: Callable[[Path], _T]) -> _T:
    """Replace `path` in one step with the file that `fill` writes; return the result of `fill`.

    `fill` gets a path in a temporary folder beside `path`. It may create other files there, as libraries do that write
    a temporary file and rename it; only the file at the given path is flushed and moved.

    Raises:
        UserError: the folder cannot be written to (missing rights, full disk, a file instead of a folder), or the disk
            fails.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART))
    except OSError as error:
        raise UserError(f"{path.parent}: cannot write here ({error.strerror}). Choose another folder.") from error
    part = temporary / "content"
    try:
        result = fill(part)
        set_mode(part, _MODE)
        _sync(part)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: writing failed ({error.strerror}). The old file is unchanged.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync_folder(path.parent)
    return result


def create_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Create `folder` in one step with what `fill` writes to a temporary folder beside it.

    If another process finishes first, its folder stays: both hold the same bytes.

    Raises:
        OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        fill(work)
        set_mode(work, 0o755)
        os.replace(work, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def set_mode(path: Path, mode: int) -> None:
    """Set the permissions of `path` if the file system supports them; CIFS and bucket mounts do not."""
    with contextlib.suppress(OSError):
        path.chmod(mode)


def remove_temporary_files(folder: Path) -> None:
    """Remove temporary files and folders that killed writers left below `folder`; no writer may be active there.

    Raises:
        UserError: one of them cannot be removed.
    """
    for path in sorted(folder.rglob(f".*{_PART}")):
        if path.is_dir():
            remove_folder(path)
        else:
            remove(path)


def check_folder(path: Path) -> None:
    """Check, before work starts whose results go to `path`, that it is a folder or can be created as one.

    Raises:
        UserError: `path` or its closest existing parent is a file or a dangling link.
    """
    existing = existing_folder(path)
    if not existing.is_dir():
        raise UserError(f"{existing}: not a folder. Choose another folder.")


def existing_folder(path: Path) -> Path:
    """Return `path`, or its closest parent that exists."""
    return next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))


def expand_home(name: str) -> Path:
    """Return a path with `~` and `~user` replaced by home folders.

    Raises:
        UserError: there is no such user, or no home folder.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UserError(f"{name}: {error}. Write the whole path.") from error


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Replace the content of `path` with `data` in one step; raises as `replace_file`."""
    replace_file(path, lambda part: part.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` with UTF-8 `text` in one step."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON: sorted keys, two spaces, no NaN or infinity, one final newline."""
    write_text(path, json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write `rows` to `path`, one JSON value per line."""
    write_text(path, "".join(_json_line(row) for row in rows))


def remove(path: Path) -> None:
    """Remove `path` if it exists.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be removed ({error.strerror}). Choose another folder.") from error


def remove_folder(path: Path) -> None:
    """Remove `path` with everything in it if it exists.

    Raises:
        UserError: part of it cannot be removed; the rest must not be mistaken for a result.
    """
    try:
        shutil.rmtree(path)
    except OSError as error:
        if path.exists():
            raise UserError(f"{path}: cannot be removed ({error.strerror}). Choose another folder.") from error


def read_json(path: Path, fields: Mapping[str, FieldType] | None = None) -> Any:
    """Read the JSON value in `path`; with `fields`, an object that has at least those, each of its type.

    Raises:
        UserError: missing, unreadable, not JSON, or not as expected; the message has the command that recreates it.
    """
    try:
        value = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"not JSON: {error}") from error
    if problem := _mismatch(value, fields):
        raise damaged(path, problem)
    return value


def read_jsonl(path: Path, fields: Mapping[str, FieldType] | None = None) -> list[Any]:
    """Read one JSON value per line of `path`; `fields` and errors as in `read_json`, with the line number."""
    rows = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise damaged(path, f"line {number}: not JSON: {error}") from error
        if problem := _mismatch(rows[-1], fields):
            raise damaged(path, f"line {number}: {problem}")
    return rows


def damaged(path: Path, problem: str) -> UserError:
    """Return the error for a damaged or unexpected file, with the command that recreates it."""
    return UserError(f"{path}: damaged or unexpected content ({problem}). {remedy(path)}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing. {remedy(path)}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). {remedy(path)}") from error
    except ValueError as error:
        raise damaged(path, f"not UTF-8: {error}") from error


def _mismatch(value: Any, fields: Mapping[str, FieldType] | None) -> str:
    """Describe why `value` is not an object with `fields`; return an empty string if it is one."""
    if fields is None:
        return ""
    if not isinstance(value, dict):
        return f"expected an object, got {_shown(value)}"
    for name, kind in fields.items():
        if not isinstance(value.get(name), kind):
            found = f"got {_shown(value[name])}" if name in value else "but it is missing"
            kinds = kind if isinstance(kind, tuple) else (kind,)
            return f"field {name}: expected {' or '.join(each.__name__ for each in kinds)}, {found}"
    return ""


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _json_line(row: Any) -> str:
    return _LINE.encode(row) + "\n"


def _sync(path: Path) -> None:
    """Flush a file to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Flush a folder's entries if the file system supports it; CIFS and bucket mounts fail with EINVAL and others."""
    try:
        _sync(path)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):  # disk errors, not missing support
            raise UserError(f"{path}: disk error ({error.strerror}). Run the same command again.") from error
