"""Possible causes of a change between two results: versions, sources, data, budgets and settings of their runs."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pilot.report.numbers.files import read_run_file
from pilot.report.numbers.load import Run

_SHORT = 12
"""Characters of a digest."""


@dataclass(frozen=True)
class Cause:
    """A property that differs between the two sides.

    Attributes:
        what: name of the property.
        old, new: its values; empty if they are not the same for all `methods`.
        methods: methods whose runs differ in it; empty for all.
    """

    what: str
    old: str
    new: str
    methods: tuple[str, ...]


def find_causes(pairs: Sequence[tuple[str, tuple[Run, Run]]]) -> list[Cause]:
    """Compare the inputs and settings of each pair's runs (label, old and new); return differences sorted by name."""
    found: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for label, (old, new) in pairs:
        before, after = _properties(old), _properties(new)
        for what in sorted(before.keys() | after.keys()):
            values = before.get(what, "none"), after.get(what, "none")
            if values[0] != values[1]:
                found[what].append((label, *values))
    everything = {label for label, _ in pairs}
    return [_cause(what, lines, everything) for what, lines in sorted(found.items())]


def _cause(what: str, lines: Sequence[tuple[str, str, str]], everything: set[str]) -> Cause:
    methods, values = dict.fromkeys(label for label, *_ in lines), {(old, new) for _, old, new in lines}
    old, new = values.pop() if len(values) == 1 else ("", "")
    return Cause(what, old, new, () if set(methods) == everything else tuple(methods))


def _properties(run: Run) -> dict[str, str]:
    """Return a run's versions, digests, budget and settings by name."""
    return dict(
        [
            *(
                (f"version of {name}", str(value))
                for name, value in read_run_file(run.path / "manifest.json").get("versions", {}).items()
            ),
            *((f"{name} digest", str(value)[:_SHORT]) for name, value in run.config["digests"].items()),
            *((f"budget {name}", _text(value)) for name, value in run.config["budget"].items()),
            *((f"hyperparameter {name}", _text(value)) for name, value in run.config["hyperparameters"].items()),
            *_federation(run),
        ]
    )


def _federation(run: Run) -> Iterable[tuple[str, str]]:
    settings = (run.config.get("profile_config") or {}).get("federation")
    return [("federation settings", _text(settings))] if settings else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
