"""Names of a method's runs that are not seeds of one training: the folders in which their paths differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pilot.errors import UserError

Trained = tuple[Path, int, Mapping[str, Any]]
"""A run's folder, its seed and its hyperparameters."""


def folder_names(method: str, runs: Sequence[Trained]) -> list[str]:
    """Name runs of one method by folders, from the method's folder up, as far as is necessary to tell them apart.

    Returns:
        A name for each run, empty where all are seeds of one training.

    Raises:
        UserError: no folder tells two runs apart that are not seeds of one training.
    """
    names = [""] * len(runs)
    clash = _clash(method, runs, names)
    folders = [path.resolve().parent.parts[::-1] for path, *_ in runs]
    for level in range(max(map(len, folders))):
        if clash is None:
            return names
        found = [parts[level] if level < len(parts) else "" for parts in folders]
        if len(set(found)) > 1:
            names = [f"{outer}/{name}" if name else outer for outer, name in zip(found, names, strict=True)]
            clash = _clash(method, runs, names)
    if clash is None:
        return names
    one, other, why = clash
    raise UserError(
        f"{one} and {other}: {why}. Expected seeds of one method, trained alike, below one folder. Train one of the "
        "two again, or move it to another folder."
    )


def _clash(method: str, runs: Sequence[Trained], names: Sequence[str]) -> tuple[Path, Path, str] | None:
    """Return two runs of one name that are not seeds of one training, and why; None if there are none."""
    first: dict[str, Trained] = {}
    by_seed: dict[tuple[str, int], Path] = {}
    for (path, seed, own), name in zip(runs, names, strict=True):
        other = by_seed.setdefault((name, seed), path)
        if other != path:
            return other, path, f"both are seed {seed} of {method}"
        other, _, others = first.setdefault(name, (path, seed, own))
        if odd := sorted(key for key in own.keys() | others.keys() if own.get(key) != others.get(key)):
            return other, path, f"different hyperparameters ({', '.join(odd)})"
    return None
