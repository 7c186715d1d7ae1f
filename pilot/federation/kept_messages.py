"""Messages of some rounds, kept in a run's folder as the server sees them (field `keep_messages` of a profile).

`messages/r<round>p<phase>/client-<k>.down.safetensors` is what the server sent to a client, `.up.safetensors` what came
back, `.json` the rest of the client's message. The files are no part of the run: its manifest does not name them, and
its bytes are the same without them. In an asynchronous run, rounds are a client's sessions.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pilot.federation.client import PhaseTask
from pilot.federation.participant import ClientResult
from pilot.federation.store import Version, version_name
from pilot.federation.transport import Answer, Transport
from pilot.io.atomic import read_json, write_json
from pilot.io.checkpoint import load_state, save_state
from pilot.methods.base import State, Update

FOLDER = "messages"
_STATISTICS = "statistics/"


@dataclass(frozen=True)
class Message:
    """What passed between the server and a client in a phase.

    Attributes:
        round_number: the round, counted from 1.
        phase_index: the phase within the round, counted from 0.
        phase: its name.
        steps: the client's optimiser steps.
        payload: tensors that the server sent.
        update: the client's answer.
    """

    round_number: int
    phase_index: int
    phase: str
    steps: int
    payload: State
    update: Update


class KeepingTransport:
    """A transport that writes the messages of some rounds to a folder as they pass."""

    def __init__(self, transport: Transport, folder: Path, rounds: Iterable[int]) -> None:
        self.parallel = transport.parallel
        self._transport, self._folder, self._rounds = transport, folder, frozenset(rounds)

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        """Pass tasks and answers on unchanged; write a message when its answer is there."""
        sent: dict[int, PhaseTask] = {}
        for answer in self._transport.exchange(self._noted(tasks, sent), progress):
            if isinstance(answer, ClientResult) and (task := sent.pop(answer.update.client, None)):
                self._write(task, answer)
            yield answer

    def verify(self, versions: Mapping[int, Version], wait: bool = True) -> str:
        """Check as the transport does."""
        return self._transport.verify(versions, wait)

    def _noted(self, tasks: Iterable[PhaseTask], sent: dict[int, PhaseTask]) -> Iterator[PhaseTask]:
        for task in tasks:
            if task.round_number in self._rounds and task.phase.shared:
                sent[task.info.client] = task
            yield task

    def _write(self, task: PhaseTask, answer: ClientResult) -> None:
        update = answer.update
        stem = self._folder / version_name(task.round_number, task.phase_index) / f"client-{update.client}"
        statistics = {f"{_STATISTICS}{name}": value for name, value in update.statistics.items()}
        save_state(stem.with_suffix(".down.safetensors"), task.payload)
        save_state(stem.with_suffix(".up.safetensors"), {**update.state, **statistics})
        rest = {"client": update.client, "task": update.task, "num_examples": update.num_examples}
        write_json(
            stem.with_suffix(".json"),
            rest | {
                "round": task.round_number, "phase_index": task.phase_index, "phase": task.phase.name,
                "steps": answer.report.steps,
            },
        )  # fmt: skip


def read_messages(run_dir: Path) -> list[Message]:
    """Read the messages that a run's folder has, by round, phase and client.

    Raises:
        UserError: a file is missing or damaged.
    """
    found = [_read(path) for path in (run_dir / FOLDER).glob("r*p*/client-*.json")]
    return sorted(found, key=lambda each: (each.round_number, each.phase_index, each.update.client))


def _read(path: Path) -> Message:
    fields = ("client", "num_examples", "round", "phase_index", "steps")
    rest = read_json(path, {**dict.fromkeys(fields, int), "task": str, "phase": str})
    values = load_state(path.with_suffix(".up.safetensors"))
    statistics = {name: value for name, value in values.items() if name.startswith(_STATISTICS)}
    state = {name: value for name, value in values.items() if name not in statistics}
    update = Update(
        rest["client"], rest["task"], rest["num_examples"], state,
        {name.removeprefix(_STATISTICS): value for name, value in statistics.items()},
    )  # fmt: skip
    payload = load_state(path.with_suffix(".down.safetensors"))
    return Message(rest["round"], rest["phase_index"], rest["phase"], rest["steps"], payload, update)
