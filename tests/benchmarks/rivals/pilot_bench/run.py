"""This suite: the same call as `pilot-bench train --engine local`, with all files of a run."""

from functools import partial
from pathlib import Path
from unittest.mock import patch

from local_training import keep_state

from pilot.bench.rivals.job import KEPT, Job, run_recorded
from pilot.federation.checkpoint import load_round
from pilot.federation.client import PhaseTask, TrainingResult
from pilot.federation.trainer import LocalTrainer
from pilot.federation.training import train_run
from pilot.methods.base import State


def main() -> None:
    """Run the job that the environment names, and record each local training as the other sides do."""
    job, run = Job.load(), LocalTrainer.run

    def recorded(trainer: LocalTrainer, task: PhaseTask, stored: State) -> TrainingResult:
        return run_recorded(job, partial(run, trainer), task, stored)

    run_dir = Path(job.folder) / "run"
    with patch.object(LocalTrainer, "run", recorded):
        train_run(job.spec, Path(job.scenario_dir), run_dir, False, lambda done, total: None)
    for number in range(1, min(KEPT, len(job.schedule)) + 1):
        keep_state(job, number, load_round(run_dir / "checkpoint", number).server.shared)


if __name__ == "__main__":
    main()
