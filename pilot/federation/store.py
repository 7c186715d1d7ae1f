"""A client's private state on its own disk, by version; none of it ever leaves the client.

A version is named after the round and phase that created it, `r<round>p<phase>`. The server knows versions and their
digests, not their content: a round checkpoint records which version of each client belongs to it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pilot.errors import UserError
from pilot.io.atomic import remove
from pilot.io.checkpoint import load_state, save_state
from pilot.io.sealed import read_sealed, write_sealed
from pilot.methods.base import State


@dataclass(frozen=True)
class Version:
    """A version of a client's private state: its name, and the sha256 of its file; `vars` is its JSON form."""

    name: str
    sha256: str


def version_name(round_number: int, phase_index: int) -> str:
    """Return the name of the version that a phase creates; `phase_index` counts the round's phases from 0."""
    return f"r{round_number}p{phase_index}"


@dataclass(frozen=True)
class ClientStore:
    """The versions of one client in one folder."""

    folder: Path

    def save(self, name: str, state: State) -> Version:
        """Write a version atomically."""
        return Version(name, save_state(self.folder / f"{name}.safetensors", state))

    def load(self, version: Version | None) -> State:
        """Load the state of a version; it is empty if `version` is None (nothing trained yet).

        Raises:
            UserError: it is missing, damaged, or not the one that the server's checkpoint names.
        """
        if version is None:
            return {}
        path = self.folder / f"{version.name}.safetensors"
        recorded = path.with_suffix(".sha256")
        if recorded.is_file() and recorded.read_bytes().strip() != version.sha256.encode():
            raise UserError(f"{path}: not the private state that the checkpoint names (its sha256 differs).")
        return load_state(path)

    def count_release(self) -> int:
        """Increment the stored number of messages with fresh noise, before the next one is sent, and return it.

        Raises:
            UserError: the stored number is damaged, so the number of messages sent is no longer known.
        """
        path = self.folder / "releases.json"
        count = (read_sealed(path, {"releases": int})["releases"] if path.is_file() else 0) + 1
        write_sealed(path, {"releases": count})
        return int(count)

    def keep(self, names: Collection[str]) -> None:
        """Remove all versions except `names`."""
        for path in sorted(self.folder.glob("r*p*.*")):
            if path.stem not in names:
                remove(path)
