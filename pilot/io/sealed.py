"""JSON files that hold their own digest: a flipped digit is found, where JSON alone would still be read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilot.io.atomic import Kind, damaged, read_json, write_json
from pilot.io.digest import digest_json

SEAL = "seal"


def write_sealed(path: Path, value: Mapping[str, Any], key: str = SEAL) -> None:
    """Replace `path` by `value` and, as field `key`, its digest."""
    write_json(path, {**value, key: digest_json(dict(value))})


def read_sealed(path: Path, fields: Mapping[str, Kind] | None = None, key: str = SEAL) -> dict[str, Any]:
    """Read what `write_sealed` wrote, without the seal.

    Raises:
        UserError: as `read_json`, or the seal is missing or of another content.
    """
    value: dict[str, Any] = read_json(path, {key: str, **(fields or {})})
    if value.pop(key) != digest_json(value):
        raise damaged(path, "its digest is not the recorded one")
    return value
