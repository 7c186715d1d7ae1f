"""Files that are either complete or absent.

Every writer goes to a file in a temporary folder beside the target, flushes it to disk, renames it over the target
and flushes the target's folder. A reader therefore sees the old content or the new one, never a part.
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
Kind = type | tuple[type, ...]
"""Type or types of a field, as `isinstance` takes them."""
_PART = ".part"
"""How names of temporary folders end; they start with a dot."""


def _umask() -> int:
    """It can only be read by setting it, for all threads: once, before there are any."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


_MODE = 0o666 & ~_umask()
"""Of new files; temporary ones would be readable by their owner only."""


def replace_file(path: Path, fill: Callable[[Path], _T]) -> _T:
    """Replace `path` in one step by the file that `fill` makes; returns what `fill` returns.

    `fill` is given a path in a folder of its own beside `path`. It may write there as it likes: libraries make
    temporary files of their own and rename them, and what is flushed is the file that they end with.

    Raises:
        UserError: the folder cannot be written to (missing rights, full disk, a file where a folder belongs), or the
            disk fails.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART))
    except OSError as error:
        raise UserError(f"{path.parent}: cannot write here ({error.strerror}). Choose another folder.") from error
    part = holder / "content"
    try:
        result = fill(part)
        set_mode(part, _MODE)
        _sync(part)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: writing failed ({error.strerror}). The old file is unchanged.") from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)
    _sync_folder(path.parent)
    return result


def set_mode(path: Path, mode: int) -> None:
    """Set the permissions of `path` where the file system has any: CIFS and bucket mounts refuse to."""
    with contextlib.suppress(OSError):
        path.chmod(mode)


def sweep(folder: Path) -> None:
    """Remove what killed writers left below `folder`; no writer may be at work there.

    Raises:
        UserError: a part of it cannot be removed.
    """
    for torn in sorted(folder.rglob(f".*{_PART}")):
        if torn.is_dir():
            remove_folder(torn)
        else:
            remove(torn)


def check_folder(path: Path) -> None:
    """Require that `path` is a folder or can become one, before work is done whose result goes there.

    Raises:
        UserError: a file or a dangling link stands there, or where a folder above it belongs.
    """
    existing = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    if not existing.is_dir():
        raise UserError(f"{existing}: is not a folder. Choose another folder.")


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step; raises as `replace_file`."""
    replace_file(path, lambda part: part.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Replace `path` by UTF-8 `text` in one step."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON: sorted keys, two spaces, no NaN or infinity, one final newline."""
    write_text(path, json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Replace `path` by one JSON value per line."""
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
        UserError: a part of it cannot be removed; what is left must not pass for a result.
    """
    try:
        shutil.rmtree(path)
    except OSError as error:
        if path.exists():
            raise UserError(f"{path}: cannot be removed ({error.strerror}). Choose another folder.") from error


def read_json(path: Path, fields: Mapping[str, Kind] | None = None) -> Any:
    """Read the JSON value in `path`; with `fields`, an object that has at least those, each of its type.

    Raises:
        UserError: missing, unreadable, not JSON, or something else than expected; the message says what makes it again.
    """
    try:
        value = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"not JSON: {error}") from error
    if problem := _misfit(value, fields):
        raise damaged(path, problem)
    return value


def read_jsonl(path: Path, fields: Mapping[str, Kind] | None = None) -> list[Any]:
    """Read one value per line of `path`; `fields` and errors as of `read_json`, and the line is named."""
    rows = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise damaged(path, f"line {number}: not JSON: {error}") from error
        if problem := _misfit(rows[-1], fields):
            raise damaged(path, f"line {number}: {problem}")
    return rows


def damaged(path: Path, problem: str) -> UserError:
    """The error of a file that is not as it was written, with the command that makes it again."""
    return UserError(f"{path}: damaged or not what belongs here ({problem}). {remedy(path)}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing. {remedy(path)}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). {remedy(path)}") from error
    except ValueError as error:
        raise damaged(path, f"not UTF-8: {error}") from error


def _misfit(value: Any, fields: Mapping[str, Kind] | None) -> str:
    """Say how `value` is not an object with `fields`; empty if it is one."""
    if fields is None:
        return ""
    if not isinstance(value, dict):
        return f"expected an object, got {_shown(value)}"
    for name, kind in fields.items():
        if not isinstance(value.get(name), kind):
            found = _shown(value[name]) if name in value else "nothing"
            kinds = kind if isinstance(kind, tuple) else (kind,)
            return f"field {name}: expected {' or '.join(each.__name__ for each in kinds)}, got {found}"
    return ""


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _json_line(row: Any) -> str:
    return json.dumps(row, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":")) + "\n"


def _sync(path: Path) -> None:
    """Flush a file to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Flush the names in a folder, where the file system can: CIFS and bucket mounts say EINVAL and the like."""
    try:
        _sync(path)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):  # of the disk, not of what it offers
            raise UserError(f"{path}: the disk failed ({error.strerror}). Run the same command again.") from error
