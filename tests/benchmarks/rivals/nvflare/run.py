"""NVFlare's simulator: a job of its FedAvg controller and a Client API script, one process per running client."""

from pathlib import Path

from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import ScriptRunner
from nvflare.recipe import SimEnv
from server import ScheduledFedAvg

from pilot.bench.rivals.job import Job

MOST_THREADS = 9
"""Clients whose processes stay; with more clients than that, each turn of a client is a new process."""


def main() -> None:
    """Run the job that the environment names."""
    job, fed_job = Job.load(), FedJob(name="rivals", min_clients=1)
    fed_job.to_server(ScheduledFedAvg(len(job.schedule[0]), len(job.schedule)))
    fed_job.to_clients(ScriptRunner(script=str(Path(__file__).with_name("client.py"))))
    threads = min(job.num_clients, MOST_THREADS)
    env = SimEnv(num_clients=job.num_clients, num_threads=threads, workspace_root=str(Path(job.folder) / "workspace"))
    env.deploy(fed_job)


if __name__ == "__main__":
    main()
