"""Files that are either complete or absent.

Every writer goes to a file in a temporary folder beside the target, flushes it to disk, renames it over the target
and flushes the target's folder. A reader therefore sees the old content or the new one, never a part.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pilot.errors import UserError

_T = TypeVar("_T")
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
        UserError: the folder cannot be written to (missing rights, full disk, a file where a folder belongs).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART))
    except OSError as error:
        raise UserError(f"{path.parent}: cannot write here ({error.strerror}). Choose another folder.") from error
    part = holder / "content"
    try:
        result = fill(part)
        part.chmod(_MODE)
        _sync(part)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: writing failed ({error.strerror}). The old file is unchanged.") from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)
    _sync(path.parent)
    return result


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


def read_json(path: Path) -> Any:
    """The JSON value in `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[Any]:
    """One value per line of `path`."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def _json_line(row: Any) -> str:
    return json.dumps(row, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":")) + "\n"


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
