"""Phases that a client has not finished, or whose round is not complete: what a killed run goes on from.

In the client's own store, and like the rest of it never sent: `unfinished-r<round>p<phase>-<step>.safetensors` with
parameters, the optimiser's state and what was recorded, and `unfinished-r<round>p<phase>.json`, which names it and its
digest and is written after it. After the last step only parameters and records are kept, until a later round begins:
a round whose other clients were killed is trained again, and those that had finished need not be.

The key says what the phase started from. A file with another key is of no use and is ignored.
"""

from dataclasses import dataclass
from pathlib import Path

from pilot.errors import UserError
from pilot.io.atomic import remove
from pilot.io.checkpoint import load_state, save_state
from pilot.io.sealed import read_sealed, write_sealed
from pilot.methods.base import State

PREFIX = "unfinished-"


@dataclass(frozen=True)
class Unfinished:
    """The place of one phase of one client."""

    folder: Path
    round_number: int
    phase_index: int
    key: str

    @property
    def _stem(self) -> str:
        return f"{PREFIX}r{self.round_number}p{self.phase_index}"

    def save(self, step: int, state: State) -> None:
        """Keep what is there after `step` steps; a kill leaves this or what was kept before."""
        path = self.folder / f"{self._stem}-{step}.safetensors"
        digest = save_state(path, state)
        note = {"step": step, "file": path.name, "sha256": digest, "key": self.key}
        write_sealed(self.folder / f"{self._stem}.json", note)
        for other in self.folder.glob(f"{self._stem}-*"):
            if other.stem != path.stem:
                remove(other)

    def load(self) -> tuple[int, State]:
        """Steps done and the state after them; (0, {}) where nothing usable is kept."""
        self._forget_other_rounds()
        note_path = self.folder / f"{self._stem}.json"
        try:
            note = read_sealed(note_path, {"step": int, "file": str, "sha256": str, "key": str})
            state = load_state(self.folder / note["file"]) if note["key"] == self.key else {}
        except UserError:  # absent, torn or damaged: train from the start
            return 0, {}
        return (note["step"], state) if state else (0, {})

    def _forget_other_rounds(self) -> None:
        for path in self.folder.glob(f"{PREFIX}r*"):
            if not path.name.startswith(f"{PREFIX}r{self.round_number}p"):
                remove(path)


def forget(folder: Path) -> None:
    """Remove everything of this kind: the run is complete."""
    for path in folder.glob(f"{PREFIX}r*"):
        remove(path)
