"""Digests of files, values and source code (sha256, hexadecimal)."""

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


def sha256_bytes(data: bytes | memoryview) -> str:
    """Compute the digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Compute the digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """Compute the digest of a JSON value; the order of keys does not matter."""
    return sha256_bytes(json.dumps(value, sort_keys=True, allow_nan=False).encode("utf-8"))


def source_digest(paths: Iterable[str]) -> str:
    """Compute the digest of source files from their names, relative to the repository, and contents.

    Raises:
        FileNotFoundError: there is no such file (a renamed module must not silently drop out of a digest).
    """
    lines = (f"{name}\0{_source_file_digest(name)}\n" for name in sorted(paths))
    return sha256_bytes("".join(lines).encode())


def code_digest(paths: Iterable[str]) -> str:
    """Compute the digest of source files' code, without imports, docstrings, comments and file names.

    A file that is only moved, or in which only the documentation changes, keeps its digest.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return digest_json(sorted(sha256_bytes(_code(REPOSITORY / path).encode()) for path in paths))


def _code(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom) or _is_text(node):
            assert isinstance(node, ast.stmt)
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = (line for number, line in enumerate(text.splitlines(), 1) if number not in left_out)
    return "".join(f"{line}\n" for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _is_text(node: ast.AST) -> bool:
    """Tell whether a statement is a docstring, or another string that nothing reads."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def _source_file_digest(name: str) -> str:
    """Compute a source file's digest once per process, since many stages share most of their files."""
    return sha256_file(REPOSITORY / name)
