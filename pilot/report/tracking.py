"""Reports of runs to experiment trackers, while they train and when they are scored: `tracking` in a profile.

Everything is read from the run's files, as for TensorBoard, so that training knows nothing of trackers. What has been
reported is in `tracking/` of the scenario's folder; the run's own folder is not changed.
"""

import math
import re
import sys
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pilot.io.atomic import read_json, read_jsonl, write_json
from pilot.io.digest import digest_json
from pilot.io.layout import scenario_folder
from pilot.report.tensorboard import read_events, run_name
from pilot.report.trackers import TRACKERS, TrackedRun, Tracker

FOLDER = "tracking"
_FIELDS = {"config": str, "id": str, "rounds": dict}
_REFUSED = re.compile(r"[^\w./-]")


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


class Tracking:
    """Reports of one run; a tracker that fails is left out from then on, with one warning."""

    def __init__(self, run: Path, names: Sequence[str], warn: Callable[[str], None] = _warn) -> None:
        self.run = run
        self.names = list(names)
        self._warn = warn
        self._open: dict[str, Tracker] = {}
        self._state: dict[str, Any] = {}
        self._seen = self._changed()  # rounds of an earlier run, which this one may discard

    def update(self) -> None:
        """Report rounds that were not reported yet, if the file of rounds has changed since the last call."""
        if self.names and (changed := self._changed()) != self._seen:
            self._seen = changed
            self._for_each(self._report)

    def score(self) -> None:
        """Report the scores of the last round."""
        self._for_each(self._score)

    def close(self) -> None:
        """Let every tracker send what is left."""
        self._for_each(lambda name: self._open.pop(name).close() if name in self._open else None)

    def _changed(self) -> int:
        """Return the time at which the file of rounds was written; 0 if there is none."""
        path = self.run / "rounds.jsonl"
        return path.stat().st_mtime_ns if path.is_file() else 0

    def _report(self, name: str) -> None:
        tracker, rounds = self._tracker(name), self._state["rounds"]
        for number, values in round_values(self.run).items():
            if number > rounds.get(name, 0):
                tracker.log(number, values)
                rounds[name] = number
        write_json(_state_file(self.run), self._state)

    def _score(self, name: str) -> None:
        number, values = max(round_values(self.run).items())
        self._tracker(name).score(number, {tag: each for tag, each in values.items() if tag.startswith("eval/")})

    def _tracker(self, name: str) -> Tracker:
        """Return the tracker, which finds the run by its identity or begins it."""
        if name not in self._open:
            self._state = self._state or read_state(self.run)
            scenario, config = scenario_folder(self.run), read_json(self.run / "config.json", {})
            group, own = f"{scenario.parent.name}/{scenario.name}", run_name(self.run).as_posix()
            self._open[name] = TRACKERS[name](TrackedRun(self.run, self._state["id"], group, own, config))
        return self._open[name]

    def _for_each(self, act: Callable[[str], object]) -> None:
        for name in list(self.names):
            try:
                act(name)
            except ImportError as error:
                self._leave_out(name, f"{error}; `pip install {name}` installs it")
            except Exception as error:  # whatever a tracker raises, the run goes on
                self._leave_out(name, f"{type(error).__name__}: {' '.join(str(error).split())}")

    def _leave_out(self, name: str, reason: str) -> None:
        self.names.remove(name)
        self._open.pop(name, None)
        self._warn(f"tracking: {name}: failed ({reason}). The run goes on without it.")


@contextmanager
def track(run: Path, names: Sequence[str]) -> Iterator[Callable[[], None]]:
    """Yield a function that reports finished rounds of a run in training; report the last ones at the end."""
    tracking = Tracking(run, names)
    try:
        yield tracking.update
    finally:
        tracking.update()
        tracking.close()


def track_scores(runs: Sequence[Path]) -> None:
    """Report the scores of runs to the trackers that were told of their rounds."""
    for run in runs:
        if _state_file(run).is_file():
            tracking = Tracking(run, list(read_state(run)["rounds"]))
            tracking.score()
            tracking.close()


def round_values(run: Path) -> dict[int, dict[str, float]]:
    """Return what trackers show of each finished round, by names without signs that one of them refuses.

    These are TensorBoard's events over rounds, without those of single clients, and the mean of every loss over the
    steps and clients of a phase.
    """
    values: dict[int, dict[str, float]] = {}
    for line in read_jsonl(run / "rounds.jsonl", {}):
        terms: dict[str, list[float]] = defaultdict(list)
        for client in line["clients"]:
            for term, losses in (client.get("losses") or {}).items():
                terms[term] += [loss for loss in losses if loss is not None]
        means = {f"loss/{term}/{line['phase']}": math.fsum(each) / len(each) for term, each in terms.items() if each}
        values.setdefault(line["round"], {}).update(means)
    for step, tag, value in read_events(run):
        if not tag.startswith("loss/") and "/client-" not in tag and step in values:
            values[step][_REFUSED.sub("_", tag)] = value
    return values


def read_state(run: Path) -> dict[str, Any]:
    """Return what was reported of a run; a run with other settings is a new one for trackers."""
    config, file = digest_json(read_json(run / "config.json", {})), _state_file(run)
    state = read_json(file, _FIELDS) if file.is_file() else {}
    return state if state.get("config") == config else {"config": config, "id": uuid.uuid4().hex[:16], "rounds": {}}


def _state_file(run: Path) -> Path:
    own = run_name(run)
    return scenario_folder(run) / FOLDER / own.parent / f"{own.name}.json"
