"""The handling of a folder whose run cannot be resumed: of another identity, or finished and without checkpoints.

The trained run is kept, and the message names the fields of its identity (`pilot.config.identity`) that differ, or what
is missing.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pilot.config.identity import identity, identity_digest
from pilot.errors import UserError
from pilot.federation.checkpoint import config_digests
from pilot.federation.unfinished import PREFIX
from pilot.io.atomic import read_json
from pilot.io.layout import EVAL, METRICS

CLIENTS = "clients"
"""Subfolder of a run directory with the clients' stores, if clients share a disk with the server."""
UNKNOWN_SETTINGS = "config.json is missing or damaged, so the old settings are unknown"
_CONFIG_FIELDS = {"digests": dict, "profile_config": dict, "scenario_config": dict}
_DIGITS = 12


def archive_different_run(run_dir: Path, config: Mapping[str, Any], replace: bool, warn: Callable[[str], None]) -> None:
    """Keep a run of another identity found in `run_dir`: rename its folder if `replace`, else refuse.

    Raises:
        UserError: there is such a run and `replace` is false (the message names the fields that differ), or the folder
            cannot be renamed.
    """
    if differing := "; ".join(differences(run_dir, config)):
        found = f"a run with different settings. Differences: {differing}. Restore the old settings to resume it"
        _archive(run_dir, found, f"differences: {differing}", replace, warn)


def archive_unusable_run(run_dir: Path, config: Mapping[str, Any], replace: bool, warn: Callable[[str], None]) -> None:
    """Keep a run without checkpoints if it is finished, and one whose checkpoints are of another version.

    A run with damaged checkpoints is not kept: training again ends in the same bytes, and the damage is named.

    Raises:
        UserError: as `archive_different_run`; the message names what is missing.
    """
    sealed, digest = config_digests(run_dir / "checkpoint"), identity_digest(config)
    if (is_finished(run_dir) and not sealed) or (sealed - {""} and digest not in sealed):
        found = (
            "a run whose checkpoints (folders checkpoint/ and clients/) are missing or of another version, so that it "
            "cannot be resumed. Restore them"
        )
        _archive(run_dir, found, "checkpoints that are missing or of another version", replace, warn)


def is_finished(run_dir: Path) -> bool:
    """Return whether a run was finished: Snakemake removes the manifest before a job, but not the scores."""
    return (run_dir / "manifest.json").is_file() or (run_dir / EVAL / METRICS).is_file()


def _archive(run_dir: Path, found: str, cause: str, replace: bool, warn: Callable[[str], None]) -> None:
    if not replace:
        raise UserError(
            f"{run_dir}: contains {found}, choose another --results, rename it with --replace-changed, or discard it "
            "with --no-resume."
        )
    archive = _unused_name(run_dir)
    try:
        os.rename(run_dir, archive)
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be renamed ({error.strerror}). Move the folder yourself.") from error
    warn(f"{run_dir}: starting over because of {cause}. Old run renamed to {archive.name}.")


def differences(run_dir: Path, config: Mapping[str, Any]) -> list[str]:
    """List the fields in which the run in `run_dir` differs from `config`, as old -> new; empty if it may continue."""
    sealed = config_digests(run_dir / "checkpoint")
    if not sealed and not is_finished(run_dir) and not any((run_dir / CLIENTS).glob(f"*/{PREFIX}*.json")):
        return []
    try:
        old = dict(_flat(identity(read_json(run_dir / "config.json", _CONFIG_FIELDS))))
    except (UserError, KeyError, TypeError):
        return [] if identity_digest(config) in sealed else [UNKNOWN_SETTINGS]
    new = dict(_flat(identity(config)))
    return [
        f"{name} {_shown(old.get(name))} -> {_shown(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _unused_name(run_dir: Path) -> Path:
    """Return the first unused name of `replaced-seed0-1`, `replaced-seed0-2`, ..., which are not read as runs."""
    number = 1
    while (archive := run_dir.with_name(f"replaced-{run_dir.name}-{number}")).exists():
        number += 1
    return archive


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested objects with their dotted names."""
    for name, each in value.items():
        if isinstance(each, Mapping) and each:
            yield from _flat(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.loads(json.dumps(each))


def _shown(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:_DIGITS]
    return "none" if value is None else json.dumps(value)
