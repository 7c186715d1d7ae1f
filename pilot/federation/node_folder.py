"""What a node folder is called and holds, without reading its data."""

from pathlib import Path

from pilot.errors import UserError
from pilot.io.atomic import read_json
from pilot.io.digest import digest_json, sha256_file

POOLED = "pooled"
FILES = ("records.parquet", "validation.parquet")
"""Training and validation records."""


def node_name(client: int | str) -> str:
    """The folder of a client below the nodes' folder."""
    return f"node-{client}"


def data_digest(folder: Path) -> str:
    """Digest of a node's data, from its files as they are now."""
    files = [*(folder / name for name in FILES), *sorted(folder.glob("features-*.npy"))]
    return digest_json({file.name: sha256_file(file) for file in files})


def client_of(folder: Path) -> int:
    """The client whose data a node folder holds; 0 for everybody's.

    Raises:
        UserError: it is no node folder.
    """
    if not (folder / "node.json").is_file():
        raise UserError(f"{folder}: no node folder (node.json is missing). See docs/deploy.md.")
    client = read_json(folder / "node.json")["client"]
    return 0 if client == POOLED else int(client)


def node_digest(folder: Path) -> tuple[int, str]:
    """Client and digest of a node folder, from its files as they are now.

    Raises:
        UserError: it is no node folder.
    """
    return client_of(folder), data_digest(folder)
