"""A client's private state on its own disk, by version; nothing here ever leaves the client.

A version is named after the round and phase that made it, `r<round>p<phase>`. The server knows versions and their
digests, not their content: a round checkpoint says which version of each client belongs to it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.errors import UserError
from pilot.io.atomic import remove
from pilot.io.checkpoint import load_state, save_state
from pilot.io.sealed import read_sealed, write_sealed
from pilot.methods.base import State


@dataclass(frozen=True)
class Version:
    """Which private state of a client counts: its name, and the sha256 of its file."""

    name: str
    sha256: str

    def to_json(self) -> dict[str, str]:
        """As checkpoints and messages hold it."""
        return {"name": self.name, "sha256": self.sha256}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Version":
        """The version that `to_json` wrote."""
        return cls(value["name"], value["sha256"])


def version_name(round_number: int, phase_index: int) -> str:
    """The version that a phase makes; `phase_index` counts the round's phases from 0."""
    return f"r{round_number}p{phase_index}"


@dataclass(frozen=True)
class ClientStore:
    """The versions of one client in one folder."""

    folder: Path

    def save(self, name: str, state: State) -> Version:
        """Write a version, complete or not at all."""
        return Version(name, save_state(self.folder / f"{name}.safetensors", state))

    def load(self, version: Version | None) -> State:
        """The state of a version; empty where the client has trained nothing yet.

        Raises:
            UserError: it is missing, damaged, or another one than the server's checkpoint names.
        """
        if version is None:
            return {}
        path = self.folder / f"{version.name}.safetensors"
        recorded = path.with_suffix(".sha256")
        if recorded.is_file() and recorded.read_bytes().strip() != version.sha256.encode():
            raise UserError(f"{path}: not the private state that the checkpoint names (its sha256 differs).")
        return load_state(path)

    def count_release(self) -> int:
        """Note on disk, before it leaves, that one more message with fresh noise does; returns how many that makes.

        Raises:
            UserError: the count so far is damaged: what has left can no longer be said.
        """
        path = self.folder / "releases.json"
        count = (read_sealed(path, {"releases": int})["releases"] if path.is_file() else 0) + 1
        write_sealed(path, {"releases": count})
        return int(count)

    def keep(self, names: Collection[str]) -> None:
        """Remove all other versions."""
        for path in sorted(self.folder.glob("r*p*.*")):
            if path.stem not in names:
                remove(path)
