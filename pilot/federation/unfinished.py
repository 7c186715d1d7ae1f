"""A client's unfinished phases, and phases of a round that is not complete, from which a killed run continues.

They are kept in the client's own store and, like the rest of it, never sent. Parameters, the optimiser's state and the
recorded values are in `unfinished-r<round>p<phase>-<step>.safetensors`; `unfinished-r<round>p<phase>.json` holds its
name and digest and is written after it. After the last step only parameters and records are kept (and the optimiser's
state if the phase needs mean gradients), until a later round begins: if a round is trained again because other clients
were killed, clients that had finished need not repeat their steps.

The key identifies what the phase started from. A file with a different key is ignored.
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
class PhaseCheckpoint:
    """Storage of one phase of one client."""

    folder: Path
    round_number: int
    phase_index: int
    key: str

    @property
    def _stem(self) -> str:
        return f"{PREFIX}r{self.round_number}p{self.phase_index}"

    def save(self, step: int, state: State) -> None:
        """Save the state after `step` steps; a kill leaves either this state or the one saved before."""
        path = self.folder / f"{self._stem}-{step}.safetensors"
        digest = save_state(path, state)
        note = {"step": step, "file": path.name, "sha256": digest, "key": self.key}
        write_sealed(self.folder / f"{self._stem}.json", note)
        for other in self.folder.glob(f"{self._stem}-*"):
            if other.stem != path.stem:
                remove(other)

    def load(self) -> tuple[int, State]:
        """Load the number of steps taken and the state after them; (0, {}) if there is nothing usable."""
        self._remove_other_rounds()
        note_path = self.folder / f"{self._stem}.json"
        try:
            note = read_sealed(note_path, {"step": int, "file": str, "sha256": str, "key": str})
            state = load_state(self.folder / note["file"]) if note["key"] == self.key else {}
        except UserError:  # absent, incomplete or damaged: train from the start
            return 0, {}
        return (note["step"], state) if state else (0, {})

    def _remove_other_rounds(self) -> None:
        for path in self.folder.glob(f"{PREFIX}r*"):
            if not path.name.startswith(f"{PREFIX}r{self.round_number}p"):
                remove(path)


def remove_phase_checkpoints(folder: Path) -> None:
    """Remove all unfinished phases in `folder`."""
    for path in folder.glob(f"{PREFIX}r*"):
        remove(path)
