"""`pilot-bench tensorboard`: the records of runs as event files for TensorBoard.

Run folders are read-only here, because their bytes are compared between reruns. An event file has a fixed name and is
replaced atomically; its bytes depend on the run's files alone. The time of day is not recorded per step, so the wall
time of an event is its step, in seconds after 1970.

Losses are over local steps, everything else is over rounds. Tags:

- `loss/<term>/mean`, `loss/<term>/client-<k>`: every term of the objective (cross_entropy, difference, load_balance,
  router_z, total, ...); the mean is over the clients that made the step;
- `router/client-<k>/<task>`: mean weight of the task's adapter in a phase;
- `drift/<phase>`, `excluded/<phase>`: aggregation drift, number of excluded updates;
- `bytes/up`, `bytes/down`: bytes sent in each round;
- `time/<what>`, `eval/<task>/<metric>/<protocol>/mean` and `.../client-<k>`: at the last round.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pilot.errors import UserError
from pilot.io.atomic import read_jsonl, replace_file
from pilot.io.layout import scenario_folder
from pilot.report.numbers.files import discover, read_run_file

FOLDER = "tensorboard"
FILE = "events.out.tfevents.0000000000.pilot-bench"
"""TensorBoard requires `tfevents` in the name and reads the files of a folder in the order of their names."""
Event = tuple[int, str, float]
"""Step, tag, value."""


def write_events(paths: Sequence[Path], to: Path | None = None) -> list[Path]:
    """Write an event file for every run below `paths` that has finished a round.

    Args:
        paths: scenario, method or run folders; runs may still be training.
        to: folder for the files, as `<profile>/<scenario>/<method>/seed<k>`; by default `tensorboard/<method>/seed<k>`
            in the scenario's folder.

    Returns:
        The files written.

    Raises:
        UserError: a path without runs, a file that cannot be read, or no run with a round.
    """
    written = []
    runs = dict.fromkeys(run for path in paths for run in discover(path))
    for run in runs:
        if events := read_events(run):
            target = _target(run, to) / FILE
            replace_file(target, lambda part, events=events: _write(part, events))  # type: ignore[misc]
            written.append(target)
    if not written:
        raise UserError(f"{', '.join(map(str, paths))}: no run has finished a round. Train one round first.")
    return written


def read_events(run: Path) -> list[Event]:
    """Return the events of a run, sorted by step and tag; a run in training has those of its finished rounds."""
    rounds = list(_read(run / "rounds.jsonl") or ())
    last = max((line["round"] for line in rounds), default=0)
    events = [*_losses(rounds), *_phases(rounds, run)]
    events += _bytes(_read(run / "ledger.json") or _ledger_so_far(run))
    events += [(last, f"time/{name}", value) for name, value in (_read(run / "timing.json") or {}).items()]
    events += _metrics(_read(run / "eval" / "metrics.json") or {}, last)
    return sorted((step, tag, float(value)) for step, tag, value in events if value is not None)


def _losses(rounds: Sequence[dict[str, Any]]) -> Iterable[Event]:
    """Yield losses over local steps; a phase begins after the last step of the longest client of the previous phase."""
    begin = 0
    for line in rounds:
        values: dict[tuple[int, str], list[float]] = defaultdict(list)
        longest = 0
        for client in line["clients"]:
            for term, losses in (client.get("losses") or {}).items():
                longest = max(longest, len(losses))
                for place, loss in enumerate(losses, start=begin + 1):
                    if loss is not None:
                        values[place, term].append(loss)
                        yield place, f"loss/{term}/client-{client['client']}", loss
        for (place, term), found in values.items():
            yield place, f"loss/{term}/mean", math.fsum(found) / len(found)
        begin += longest


def _phases(rounds: Sequence[dict[str, Any]], run: Path) -> Iterable[Event]:
    """Yield router weights, drift and excluded updates over rounds; the last phase of a round sets its weights."""
    tasks = [task["name"] for task in (_read(run / "config.json") or {}).get("tasks", ())]
    weights: dict[tuple[int, str], float] = {}
    for line in rounds:
        number, phase = line["round"], line["phase"]
        yield number, f"excluded/{phase}", len(line.get("excluded") or ())
        yield number, f"drift/{phase}", line.get("drift")  # type: ignore[misc]
        for client in line["clients"]:
            shares = (client.get("diagnostics") or {}).get("router_probabilities") or ()
            names = tasks if len(tasks) == len(shares) else [f"expert-{place}" for place in range(len(shares))]
            for name, share in zip(names, shares, strict=True):
                weights[number, f"router/client-{client['client']}/{name}"] = share
    yield from ((number, tag, share) for (number, tag), share in weights.items())


def _bytes(ledger: dict[str, Any]) -> Iterable[Event]:
    totals: dict[tuple[int, str], int] = defaultdict(int)
    for message in ledger.get("messages", ()):
        totals[message["round"], f"bytes/{message['direction']}"] += sum(message["groups"].values())
    return ((number, tag, size) for (number, tag), size in totals.items())


def _ledger_so_far(run: Path) -> dict[str, Any]:
    """Return the ledger of a run in training from its newest checkpoint; its files are replaced meanwhile."""
    for folder in sorted((run / "checkpoint").glob("round-*"), key=lambda path: -int(path.name.split("-")[1])):
        try:
            return next(iter(read_jsonl(folder / "history.json", {"ledger": dict})))["ledger"]
        except (UserError, StopIteration):
            continue
    return {}


def _metrics(metrics: dict[str, Any], last: int) -> Iterable[Event]:
    values: dict[str, list[float]] = defaultdict(list)
    for entry in metrics.get("entries", ()):
        if entry["value"] is not None:
            tag = f"eval/{entry['task']}/{entry['metric']}/{entry['protocol']}"
            values[tag].append(entry["value"])
            yield last, f"{tag}/client-{entry['client']}", entry["value"]
    yield from ((last, f"{tag}/mean", math.fsum(found) / len(found)) for tag, found in values.items())


def run_name(run: Path) -> Path:
    """Return `<method>/seed<k>`, which is unique in the scenario's folder, after the fault's folder if any."""
    scenario, holder = scenario_folder(run), run.resolve().parents[2]
    return holder.relative_to(scenario) / run.resolve().parent.name / run.name


def _target(run: Path, to: Path | None) -> Path:
    """Return the folder of a run's events."""
    scenario = scenario_folder(run)
    folder = scenario / FOLDER if to is None else to / scenario.parent.name / scenario.name
    return folder / run_name(run)


def _write(path: Path, events: Sequence[Event]) -> None:
    from tensorboardX.proto.event_pb2 import Event as Record
    from tensorboardX.record_writer import RecordWriter
    from tensorboardX.summary import scalar

    writer = RecordWriter(str(path))
    writer.write(Record(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
    for step, tag, value in events:
        record = Record(wall_time=float(step), step=step, summary=scalar(tag, value))
        writer.write(record.SerializeToString())
    writer.close()


def _read(path: Path) -> Any:
    """Return the content of a file; None if it does not exist (yet)."""
    return read_run_file(path) if path.exists() else None
