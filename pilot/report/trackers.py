"""Experiment trackers of other packages behind one interface; each is imported when it is used.

A tracker gets one value per name and round. Its own settings (server, project of an account, offline mode) are those of
its environment variables, such as `MLFLOW_TRACKING_URI` and `WANDB_MODE`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "pilot-bench"


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers show it.

    Attributes:
        path: the run's folder.
        id: identifies the run in a tracker, so that a resumed or evaluated run is found again.
        group: profile and scenario.
        name: method and seed, with the fault if any.
        config: the run's settings.
    """

    path: Path
    id: str
    group: str
    name: str
    config: Mapping[str, Any]


class Tracker(Protocol):
    """A run in progress in one tracker."""

    def log(self, round_number: int, values: Mapping[str, float]) -> None:
        """Report the values of a round."""

    def score(self, round_number: int, values: Mapping[str, float]) -> None:
        """Report the scores of the models after a round."""

    def close(self) -> None:
        """Send what is left."""


class TensorBoard:
    """Event files of the scenario's folder, as `pilot-bench tensorboard` writes them."""

    def __init__(self, run: TrackedRun) -> None:
        self._path = run.path

    def log(self, round_number: int, values: Mapping[str, float]) -> None:
        """Write the run's event file again, which has more than `values`."""
        from pilot.report.tensorboard import write_events

        write_events([self._path])

    score = log

    def close(self) -> None:
        """Do nothing: files are complete."""


class WandB:
    """Weights & Biases; scores are in a run's summary, since its steps only grow."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), id=run.id, name=run.name, group=run.group,
            config=dict(run.config), resume="allow", settings=wandb.Settings(console="off", login_timeout=30),
        )  # fmt: skip

    def log(self, round_number: int, values: Mapping[str, float]) -> None:
        """Report the values of a round."""
        self._run.log(dict(values), step=round_number)

    def score(self, round_number: int, values: Mapping[str, float]) -> None:
        """Report the scores of the models after a round."""
        self._run.summary.update(dict(values))

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


class MLflow:
    """MLflow; the run is found by its tag `pilot_bench.id`."""

    def __init__(self, run: TrackedRun) -> None:
        os.environ.setdefault(
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"
        )  # a server that is away delays training for seconds
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.tracking import MlflowClient

        self._metric, self._client = Metric, MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        found = self._client.search_runs([place], f"tags.`pilot_bench.id` = '{run.id}'")
        if found:
            self._id = found[0].info.run_id
            return
        tags = {"pilot_bench.id": run.id, "group": run.group}
        self._id = self._client.create_run(place, run_name=f"{run.group} {run.name}", tags=tags).info.run_id
        parameters = [Param(name, str(value)[:500]) for name, value in _flat(run.config).items()]
        for first in range(0, len(parameters), 100):  # most that a server takes
            self._client.log_batch(self._id, params=parameters[first : first + 100])
        self._client.log_batch(self._id, tags=[RunTag("mlflow.source.name", PROJECT)])

    def log(self, round_number: int, values: Mapping[str, float]) -> None:
        """Report the values of a round."""
        import time

        now, entries = int(time.time() * 1000), list(values.items())
        for first in range(0, len(entries), 1000):
            some = entries[first : first + 1000]
            self._client.log_batch(self._id, [self._metric(name, value, now, round_number) for name, value in some])

    score = log

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._id)


class Trackio:
    """trackio, on this machine unless `TRACKIO_SPACE_ID` names a space."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self._run = trackio.init(
            project=PROJECT, name=f"{run.group} {run.name} {run.id}", group=run.group, config=dict(run.config),
            resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def log(self, round_number: int, values: Mapping[str, float]) -> None:
        """Report the values of a round."""
        self._run.log(dict(values), step=round_number)

    score = log

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


TRACKERS: dict[str, Callable[[TrackedRun], Tracker]] = {
    "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "trackio": Trackio
}  # fmt: skip
"""Name in a profile's `tracking` -> the tracker; it is also the name of the package to install."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested settings with their dotted names."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        inside = isinstance(value, Mapping) and value
        leaves |= _flat(value, f"{prefix}{name}.") if inside else {f"{prefix}{name}": value}
    return leaves
