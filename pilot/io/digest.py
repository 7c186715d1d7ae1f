"""Digests of files, values and source code (sha256, hexadecimal)."""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
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
    """Digest of source files by name, relative to the repository, and content.

    Raises:
        FileNotFoundError: there is no such file (a renamed module must not silently drop out of a digest).
    """
    lines = (f"{name}\0{_source_file_digest(name)}\n" for name in sorted(paths))
    return sha256_bytes("".join(lines).encode())


@cache
def _source_file_digest(name: str) -> str:
    """Digest of a source file as it is when a process first asks: many stages share most of their files."""
    return sha256_file(REPOSITORY / name)
