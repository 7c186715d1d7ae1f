"""One run of one simulator: what it trains, and the log of its clients, which all sides write in the same way.

A job is a JSON file, named by the environment variable `PILOT_RIVALS_JOB`, so that every process of a simulator finds
it. Each finished local training appends a line to the job's log, whichever process it ran in.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pilot.federation.client import PhaseTask, TrainingResult
from pilot.federation.spec import RunSpec
from pilot.io.atomic import read_json, write_json
from pilot.methods.base import State

VARIABLE = "PILOT_RIVALS_JOB"
KEPT = 2
"""Number of rounds after which the server's state is kept."""


@dataclass(frozen=True)
class Job:
    """A run of FedAvg over some rounds.

    Attributes:
        config: scenario, profile, method and seed, as `RunSpec.from_config` reads them.
        scenario_dir: folder with data, partition and features.
        folder: an empty folder for everything that the run writes.
        schedule: ids of the clients of each round, ascending.
        workers: number of clients that may train at the same time, where a simulator can choose it.
        first_round: round to begin with; if it is not 1, from the state of the round before, which is in `folder`.
    """

    config: Mapping[str, Any]
    scenario_dir: str
    folder: str
    schedule: tuple[tuple[int, ...], ...]
    workers: int = 1
    first_round: int = 1

    @classmethod
    def load(cls) -> "Job":
        """Load the job that the environment names."""
        content = read_json(Path(os.environ[VARIABLE]))
        return cls(**content | {"schedule": tuple(tuple(clients) for clients in content["schedule"])})

    def save(self) -> Path:
        """Write the job to its folder; return the file."""
        path = Path(self.folder) / "job.json"
        write_json(path, asdict(self))
        return path

    @property
    def spec(self) -> RunSpec:
        """The run's specification."""
        return RunSpec.from_config(self.config)

    @property
    def num_clients(self) -> int:
        """Number of clients, those that no round selects included."""
        return len(self.spec.scenario.client_tasks)

    def state_file(self, round_number: int) -> Path:
        """Return the file in which a side leaves the server's state after a round, of the first `KEPT` ones."""
        return Path(self.folder) / f"state-{round_number}.safetensors"

    @property
    def log_file(self) -> Path:
        """File of one line per finished local training."""
        return Path(self.folder) / "log.jsonl"


@dataclass(frozen=True)
class Trained:
    """A finished local training.

    Attributes:
        round: counted from 1.
        client: its id.
        step_seconds: wall time of the optimiser steps.
        cpu_seconds: CPU time of the training, from the received model to the one that is sent.
        ended: Unix time at its end.
    """

    round: int
    client: int
    step_seconds: float
    cpu_seconds: float
    ended: float


def run_recorded(
    job: Job, run: Callable[[PhaseTask, State], TrainingResult], task: PhaseTask, stored: State
) -> TrainingResult:
    """Run a local training and append it to the log; lines of several processes do not mix."""
    began = time.thread_time()
    result = run(task, stored)
    cpu_seconds = time.thread_time() - began
    trained = Trained(task.round_number, task.info.client, result.step_seconds, cpu_seconds, time.time())
    descriptor = os.open(job.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, (json.dumps(asdict(trained)) + "\n").encode())
    finally:
        os.close(descriptor)
    return result


def read_log(job: Job) -> list[Trained]:
    """Read the log; empty if no client has trained."""
    if not job.log_file.is_file():
        return []
    return [Trained(**json.loads(line)) for line in job.log_file.read_text(encoding="utf-8").splitlines()]
