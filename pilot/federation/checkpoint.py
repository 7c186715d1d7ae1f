"""Round checkpoints: complete or absent.

`checkpoint/round-<r>/` holds the server's state, every client's state (each client's own store), the history and the
ledger so far; `checkpoint/progress.json`, written after them, names the round that counts. Older rounds are removed
after it.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.errors import UserError
from pilot.io.atomic import read_json, remove, write_json
from pilot.io.checkpoint import load_state, save_state
from pilot.io.digest import sha256_file
from pilot.methods.base import ServerState, State


@dataclass
class Progress:
    """Everything a run needs to go on after `round_number` complete rounds."""

    round_number: int
    server: ServerState
    clients: dict[int, State]
    history: list[dict[str, Any]]
    ledger: dict[str, Any]


def save_progress(folder: Path, progress: Progress, config_digest: str) -> None:
    """Write the checkpoint of a round."""
    name = f"round-{progress.round_number}"
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    save_state(target / "server.safetensors", _flatten(progress.server))
    for client, state in sorted(progress.clients.items()):
        save_state(target / f"client-{client}.safetensors", state)
    record = json.loads(json.dumps(progress.server.record))
    write_json(target / "history.json", {"history": progress.history, "ledger": progress.ledger, "record": record})
    write_json(
        folder / "progress.json",
        {
            "round": progress.round_number,
            "config_digest": config_digest,
            "clients": sorted(progress.clients),
            "history_digest": sha256_file(target / "history.json"),
        },
    )
    clean(folder, progress.round_number)


def clean(folder: Path, round_number: int) -> None:
    """Remove other rounds; with round 0 everything."""
    if round_number == 0:
        remove(folder / "progress.json")
    for old in folder.glob("round-*"):
        if old.name != f"round-{round_number}":
            shutil.rmtree(old, ignore_errors=True)


def load_progress(folder: Path, config_digest: str | None) -> Progress | None:
    """The last complete round, or None if there is none for this configuration.

    Raises:
        UserError: the checkpoint is damaged.
    """
    pointer = folder / "progress.json"
    if not pointer.is_file():
        return None
    value = read_json(pointer)
    if config_digest is not None and value["config_digest"] != config_digest:
        return None
    source = folder / f"round-{value['round']}"
    if not source.is_dir():
        raise UserError(f"{source}: named by {pointer} but missing. Remove {folder} and train again.")
    if sha256_file(source / "history.json") != value["history_digest"]:
        raise UserError(f"{source / 'history.json'}: damaged (its sha256 is not the recorded one). Remove {folder}.")
    past = read_json(source / "history.json")
    return Progress(
        value["round"],
        _unflatten(load_state(source / "server.safetensors"), past["record"]),
        {client: load_state(source / f"client-{client}.safetensors") for client in value["clients"]},
        past["history"],
        past["ledger"],
    )


def _flatten(server: ServerState) -> State:
    flat = {f"shared/{name}": value for name, value in server.shared.items()}
    for client, state in server.per_client.items():
        flat |= {f"client-{client}/{name}": value for name, value in state.items()}
    return flat


def _unflatten(flat: State, record: dict[str, Any]) -> ServerState:
    shared: State = {}
    per_client: dict[int, State] = {}
    for key, value in flat.items():
        owner, name = key.split("/", 1)
        if owner == "shared":
            shared[name] = value
        else:
            per_client.setdefault(int(owner.removeprefix("client-")), {})[name] = value
    return ServerState(shared, per_client, record)
