"""Round checkpoints, each of them complete or ignored; the previous one is kept.

`checkpoint/round-<r>/` holds the server's tensors (`server.safetensors`), the history, the ledger and the server's
record so far (`history.json`) and, written last, `complete.json` with the digests of both files. `history.json` also
holds the digest of every client's private state, which is in the client's own store. A folder without `complete.json`
is ignored. The last two rounds are kept: if the newest is damaged, the other one is used. Rounds whose models are
evaluated (`evaluate_every` in the profile) are kept, too.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilot.errors import UserError
from pilot.federation.store import Version
from pilot.io.atomic import read_json, remove_folder, write_jsonl
from pilot.io.checkpoint import load_state, save_state
from pilot.io.digest import sha256_file
from pilot.io.layout import KEPT_ROUNDS
from pilot.io.sealed import read_sealed, write_sealed
from pilot.methods.base import ServerState, State

SEAL = "digest"
Verify = Callable[[Mapping[int, Version]], str]
"""Function that checks the clients' private states of these versions and returns the problem, or an empty string."""


@dataclass
class Progress:
    """State of a run after `round_number` complete rounds: everything that it needs to continue.

    `versions` holds the version of each client's private state after that round, `previous` those of the round before,
    and `evaluated` those of the earlier rounds whose models are evaluated, by round.
    """

    round_number: int = 0
    server: ServerState = field(default_factory=ServerState)
    versions: dict[int, Version] = field(default_factory=dict)
    previous: dict[int, Version] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    ledger: dict[str, Any] = field(default_factory=dict)
    evaluated: dict[int, dict[int, Version]] = field(default_factory=dict)

    @property
    def kept(self) -> tuple[Mapping[int, Version], ...]:
        """Versions of the clients' private states in every round before this one whose checkpoint is kept."""
        return self.previous, *self.evaluated.values()


def save_progress(folder: Path, progress: Progress, config_digest: str) -> None:
    """Write the checkpoint of a round, then remove all but the last two and those of evaluated rounds.

    `config_digest` is the digest of what training depends on (`pilot.federation.identity`).
    """
    target = folder / f"round-{progress.round_number}"
    remove_folder(target)
    server_digest = save_state(target / "server.safetensors", _flatten(progress.server))
    past = {
        "history": progress.history,
        "ledger": progress.ledger,
        "record": json.loads(json.dumps(progress.server.record)),
        "versions": _versions_json(progress.versions),
        "previous": _versions_json(progress.previous),
    }
    if progress.evaluated:
        past["evaluated"] = {str(number): _versions_json(each) for number, each in sorted(progress.evaluated.items())}
    write_jsonl(target / "history.json", [past])  # on one line: Python is slow at indenting JSON
    seal = {
        "round": progress.round_number,
        "config_digest": config_digest,
        "server_digest": server_digest,
        "history_digest": sha256_file(target / "history.json"),
    }
    write_sealed(target / "complete.json", seal, SEAL)
    prune_rounds(folder, progress)


def rounds_of(folder: Path) -> list[int]:
    """List the rounds that have a folder, complete or not, in ascending order."""
    names = [path.name.removeprefix("round-") for path in folder.glob("round-*")]
    return sorted(int(name) for name in names if name.isdecimal())


def prune_rounds(folder: Path, progress: Progress) -> None:
    """Keep only the last `KEPT_ROUNDS` rounds and evaluated ones, as in a run that was never killed after this round.

    Later rounds are incomplete, damaged, or of another configuration; an earlier one was about to be removed.
    """
    kept = [number for number in rounds_of(folder) if number <= progress.round_number][-KEPT_ROUNDS:]
    for number in rounds_of(folder):
        if number not in kept and number not in progress.evaluated:
            remove_folder(folder / f"round-{number}")


def load_progress(
    folder: Path,
    config_digest: str | None,
    verify: Verify = lambda versions: "",
    warn: Callable[[str], None] | None = None,
) -> Progress | None:
    """Load the last undamaged round of this configuration (of any, if None); return None if there is none.

    If a round, or one that is kept for evaluation before it, is damaged, `warn` is called with the problem, and the
    round before it is tried.

    Raises:
        UserError: a round is damaged and `warn` is None.
    """
    for number in reversed(rounds_of(folder)):
        source = folder / f"round-{number}"
        if not (source / "complete.json").is_file():
            continue
        try:
            progress = _load(source, config_digest)
            if progress and (problem := verify(progress.versions)):
                raise UserError(f"{source}: {problem}")
            if progress and warn:
                _check_evaluated(folder, progress, verify)
            return progress
        except UserError as error:
            if warn is None:
                raise
            warn(f"{error} Using the previous round.")
    return None


def load_last(folder: Path) -> Progress:
    """Load the last round, of any configuration.

    Raises:
        UserError: no round was finished, or the last one is damaged.
    """
    progress = load_progress(folder, None)
    if progress is None:
        raise UserError(f"{folder}: no finished round. Train the run first.")
    return progress


def _check_evaluated(folder: Path, progress: Progress, verify: Verify) -> None:
    for number, versions in progress.evaluated.items():
        load_round(folder, number)
        if problem := verify(versions):
            raise UserError(f"{folder / f'round-{number}'}: {problem}")


def load_round(folder: Path, number: int) -> Progress:
    """Load the checkpoint of one round.

    Raises:
        UserError: it is missing or damaged.
    """
    source = folder / f"round-{number}"
    if not (source / "complete.json").is_file():
        raise UserError(f"{source}: checkpoint of an evaluated round is missing. Train the run again with --no-resume.")
    progress = _load(source, None)
    assert progress is not None, "any configuration was asked for"
    return progress


def config_digests(folder: Path) -> set[str]:
    """Collect the `config_digest` of every complete round; a round whose seal is damaged adds an empty string."""
    found = set()
    for number in rounds_of(folder):
        if (folder / f"round-{number}" / "complete.json").is_file():
            try:
                found.add(str(_seal(folder / f"round-{number}")["config_digest"]))
            except UserError:
                found.add("")
    return found


def _seal(source: Path) -> dict[str, Any]:
    fields = {"round": int, "config_digest": str, "server_digest": str, "history_digest": str}
    return read_sealed(source / "complete.json", fields, SEAL)


def _load(source: Path, config_digest: str | None) -> Progress | None:
    seal = _seal(source)
    if config_digest is not None and seal["config_digest"] != config_digest:
        return None
    for name, key in (("history.json", "history_digest"), ("server.safetensors", "server_digest")):
        if not (source / name).is_file():
            raise UserError(f"{source / name}: checkpoint is incomplete (the file is missing).")
        if sha256_file(source / name) != seal[key]:
            raise UserError(f"{source / name}: checkpoint is damaged (sha256 differs from the recorded one).")
    past = read_json(source / "history.json")
    return Progress(
        seal["round"],
        _unflatten(load_state(source / "server.safetensors"), past["record"]),
        _versions(past["versions"]),
        _versions(past["previous"]),
        past["history"],
        past["ledger"],
        {int(number): _versions(each) for number, each in past.get("evaluated", {}).items()},
    )


def _versions(value: Mapping[str, Any]) -> dict[int, Version]:
    return {int(client): Version(**version) for client, version in value.items()}


def _versions_json(versions: Mapping[int, Version]) -> dict[str, Any]:
    return {str(client): vars(version) for client, version in sorted(versions.items())}


def versions_to_keep(*versions: Mapping[int, Version], client: int) -> tuple[str, ...]:
    """List the names of a client's versions that any of the rounds still needs, sorted."""
    return tuple(sorted({each[client].name for each in versions if client in each}))


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
