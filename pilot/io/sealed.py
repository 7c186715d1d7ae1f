"""JSON files that contain their digest: it reveals a changed digit, with which the file would still be valid JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilot.io.atomic import FieldType, damaged, read_json, write_json
from pilot.io.digest import digest_json

SEAL = "seal"


def write_sealed(path: Path, value: Mapping[str, Any], key: str = SEAL) -> None:
    """Write `value` to `path`, with its digest as field `key`."""
    write_json(path, {**value, key: digest_json(dict(value))})


def read_sealed(path: Path, fields: Mapping[str, FieldType] | None = None, key: str = SEAL) -> dict[str, Any]:
    """Read a file of `write_sealed`, check its digest, and return the value without it.

    Raises:
        UserError: as `read_json`, or the digest is missing or does not match.
    """
    value: dict[str, Any] = read_json(path, {key: str, **(fields or {})})
    if value.pop(key) != digest_json(value):
        raise damaged(path, "its digest differs from the recorded one")
    return value
