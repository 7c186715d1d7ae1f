"""Names and metadata of node folders, without reading their data."""

from pathlib import Path
from typing import Any

from pilot.errors import UserError
from pilot.io.atomic import FieldType
from pilot.io.digest import digest_json
from pilot.io.sealed import read_sealed
from pilot.io.verified import digest_of

POOLED = "pooled"
FILES = ("records.parquet", "validation.parquet")
"""Training and validation records."""


def node_name(client: int | str) -> str:
    """Return the name of a client's folder below the nodes' folder."""
    return f"node-{client}"


def data_digest(folder: Path) -> str:
    """Compute the digest of a node's data from its current files (large ones by their stamps, see `digest_of`)."""
    files = [*(folder / name for name in FILES), *sorted(folder.glob("features-*.npy"))]
    return digest_json({file.name: digest_of(file) for file in files})


def client_of(folder: Path) -> int:
    """Return the client whose data a node folder holds; 0 for the pooled data of all clients.

    Raises:
        UserError: as `read_node`.
    """
    client = read_node(folder)["client"]
    return 0 if client == POOLED else int(client)


def read_node(folder: Path) -> dict[str, Any]:
    """Read `node.json`: the client of a node folder, number of examples and digest of its data, and the scenario.

    Raises:
        UserError: it is not a node folder, or the file is damaged.
    """
    if not (folder / "node.json").is_file():
        raise UserError(f"{folder}: not a node folder (node.json is missing). See docs/deploy.md.")
    fields: dict[str, FieldType] = {"client": (int, str), "num_examples": int, "digest": str, "scenario": str}
    return read_sealed(folder / "node.json", fields)


def node_digest(folder: Path) -> tuple[int, str]:
    """Return the client of a node folder and the digest of its current files.

    Raises:
        UserError: it is not a node folder.
    """
    return client_of(folder), data_digest(folder)
