"""Flower's Simulation Runtime: virtual nodes on Ray's workers, each with one core."""

from pathlib import Path

from apps import ScheduledFedAvg, app, local_training
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from local_training import Adapters

from pilot.bench.rivals.job import Job


def main() -> None:
    """Run the job that the environment names."""
    job, server = Job.load(), ServerApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        model = Adapters(local_training().initial())
        strategy = ScheduledFedAvg(job, model)
        strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds=len(job.schedule))

    backend = {
        "init_args": {"num_cpus": job.workers, "include_dashboard": False, "_temp_dir": str(Path(job.folder) / "ray")},
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
    }
    run_simulation(server, app, job.num_clients, backend_config=backend)


if __name__ == "__main__":
    main()
