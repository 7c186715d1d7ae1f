"""Digests of files, values and source code (sha256, hexadecimal)."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


def sha256_bytes(data: bytes) -> str:
    """Digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """Digest of a JSON value; the order of keys does not matter."""
    return sha256_bytes(json.dumps(value, sort_keys=True, allow_nan=False).encode("utf-8"))


def source_digest(paths: Iterable[str]) -> str:
    """Digest of source files and of folders of source files, named relative to the repository.

    Folders count every file below them that is neither compiled nor hidden, by relative path and content.

    Raises:
        FileNotFoundError: a path does not exist (a renamed module must not silently drop out of a digest).
    """
    digest = hashlib.sha256()
    for name in sorted(paths):
        root = REPOSITORY / name
        files = [root] if root.is_file() else sorted(f for f in root.rglob("*") if f.is_file())
        if not files:
            raise FileNotFoundError(f"no source under {root}")
        for file in files:
            relative = file.relative_to(REPOSITORY)
            if "__pycache__" in relative.parts or any(part.startswith(".") for part in relative.parts):
                continue
            digest.update(f"{relative.as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()
