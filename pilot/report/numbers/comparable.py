"""Check that runs can be compared; record differences that were allowed."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pilot.errors import UserError
from pilot.report.numbers.load import Run
from pilot.report.numbers.order import is_reference

DIFFERENCES = ("data", "partition", "backbone", "tests", "budget", "seeds", "frame")
"""Properties in which compared runs may differ."""

EVERYTHING = "all"
_NUM_SHOWN = 3


@dataclass(frozen=True)
class Difference:
    """A property in which compared runs differ: its name in `DIFFERENCES`, and a text with values and runs."""

    what: str
    text: str


@dataclass(frozen=True)
class AllowedDifferences:
    """Names of the differences that a comparison allows, and the differences that were found."""

    names: tuple[str, ...] = ()
    found: tuple[Difference, ...] = ()


def check_comparable(runs: Sequence[Run], allow: Collection[str] = ()) -> AllowedDifferences:
    """Refuse runs of a scenario that differ in data, partition, backbone, test set, budget, seeds or coordinate frame.

    Runs of different scenarios are never tested against each other, so they may differ. The seeds of references are not
    compared, nor the budgets of references that were not trained. Imported runs have neither shards nor our backbone,
    and their test sets are compared example by example.

    Args:
        runs: the runs to compare.
        allow: names from `DIFFERENCES` to allow; "all" allows every difference.

    Returns:
        The names that were allowed and the differences that were found.

    Raises:
        UserError: an unknown name, or differences that are not allowed; lists each one with its values and runs.
    """
    if unknown := sorted(set(allow) - {*DIFFERENCES, EVERYTHING}):
        raise UserError(
            f"--allow-different {unknown[0]}: unknown. Expected one of: {', '.join((*DIFFERENCES, EVERYTHING))}."
        )
    names = tuple(name for name in DIFFERENCES if name in allow or EVERYTHING in allow)
    scenarios = sorted({run.scenario for run in runs})
    found = tuple(each for name in scenarios for each in _differences([run for run in runs if run.scenario == name]))
    if refused := [difference for difference in found if difference.what not in names]:
        options = " ".join(f"--allow-different {name}" for name in dict.fromkeys(each.what for each in refused))
        raise UserError(
            "these runs cannot be compared:\n" + "\n".join(f"- {each.text}" for each in refused) + "\nRun again "
            f"those that differ, compare fewer paths, or pass {options} to compare them anyway."
        )
    return AllowedDifferences(names, found)


def _differences(runs: Sequence[Run]) -> Iterable[Difference]:
    own = [run for run in runs if not run.imported]
    yield from _by_value("data", "data digest", [(run, run.config["digests"].get("data")) for run in runs])
    for name in ("partition", "backbone"):
        yield from _by_value(name, f"{name} digest", [(run, run.config["digests"].get(name)) for run in own])
    yield from _by_value("tests", "test set digest", [(run, run.test_digest) for run in own])
    yield from _imported_tests(runs)
    trained = [run for run in runs if not run.reference]
    for name in sorted({key for run in trained for key in run.config["budget"]}):
        yield from _by_value("budget", f"budget {name}", [(run, run.config["budget"].get(name)) for run in trained])
    yield from _seeds([run for run in runs if not is_reference(run.method, run.reference)])
    yield from _by_value("frame", "coordinate frame", [(run, frame) for run in runs for frame in _frames(run)])


def _by_value(what: str, name: str, values: Iterable[tuple[Run, Any]]) -> Iterable[Difference]:
    """Yield a difference if the runs do not all have the same value."""
    groups: dict[str, list[str]] = defaultdict(list)
    for run, value in values:
        groups[json.dumps(value, sort_keys=True)].append(str(run.path))
    if len(groups) < 2:
        return
    lines = [f"{name} differs:"]
    for value, paths in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        shown = paths if len(paths) <= _NUM_SHOWN + 1 else [*paths[:_NUM_SHOWN], f"and {len(paths) - _NUM_SHOWN} more"]
        lines.append(f"    {_short(value)}: {', '.join(shown)}")
    yield Difference(what, "\n".join(lines))


def _short(value: str) -> str:
    text = value.strip('"')
    return f"{text[:12]}..." if len(text) > 24 else text


def _seeds(runs: Sequence[Run]) -> Iterable[Difference]:
    """Yield a difference if the methods of a scenario were run with different seeds."""
    seeds: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        seeds[run.label].append(run.seed)
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for label, found in seeds.items():
        groups[tuple(sorted(found))].append(label)
    if len(groups) > 1:
        lines = [f"    {', '.join(map(str, found))}: {', '.join(labels)}" for found, labels in groups.items()]
        yield Difference("seeds", "\n".join([f"seeds of the methods of {runs[0].scenario} differ:", *lines]))


def _frames(run: Run) -> list[str]:
    """Return the frames of a run's boxes; empty without grounding."""
    answered = {entry.task for entry in run.entries}
    return sorted({task.frame for task in run.tasks if task.frame and task.name in answered})


def _imported_tests(runs: Sequence[Run]) -> Iterable[Difference]:
    """Yield a difference for each task on which an imported run answers other examples than a second run does.

    The second run is one of another method that answers the task; if there is one of ours, it is used.
    """
    for run in runs:
        others = [other for other in runs if other.scenario == run.scenario and other.label != run.label]
        for task in sorted(run.test_examples) if run.imported else ():
            base = next((o for o in sorted(others, key=lambda o: o.imported) if task in o.test_examples), None)
            if base is None:
                continue
            mine, theirs = run.test_examples[task], base.test_examples[task]
            odd = sorted(id for id in mine.keys() | theirs.keys() if mine.get(id) != theirs.get(id))
            if odd:
                shown = ", ".join(repr(id) for id in odd[:_NUM_SHOWN])
                text = f"test set of {task} differs: {run.path} and {base.path} disagree on {len(odd)} examples, first:"
                yield Difference("tests", f"{text} {shown}")
