"""Checks of a scenario's records against `data/manifest.json`."""

from pathlib import Path

from pilot.io.atomic import damaged, read_json
from pilot.io.verified import check_digest

FILE = "manifest.json"


def check_data(folder: Path) -> dict[str, str]:
    """Check the records in a scenario's folder `data` against the digests in its manifest.

    Returns:
        sha256 of `records.parquet` by task.

    Raises:
        UserError: the manifest or a task's records are missing or altered.
    """
    digests = _digests(folder)
    if not digests:
        raise damaged(folder / FILE, "field digests: expected one for each task, got none")
    for task, digest in digests.items():
        check_digest(folder / task / "records.parquet", digest)
    return digests


def checked_records(folder: Path, task: str) -> Path:
    """Return the path of a task's records in a scenario's folder `data`, checked if the manifest lists them.

    Raises:
        UserError: the manifest is damaged, or the records are altered.
    """
    path = folder / task / "records.parquet"
    if path.is_file() and (folder / FILE).is_file() and task in (digests := _digests(folder)):
        check_digest(path, digests[task])
    return path


def _digests(folder: Path) -> dict[str, str]:
    digests: dict[str, str] = read_json(folder / FILE, {"digests": dict})["digests"]
    return digests
