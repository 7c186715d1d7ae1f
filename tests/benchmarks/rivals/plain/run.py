"""FedAvg as a plain loop in one process, without any framework: the floor of every side's time."""

from local_training import LocalTraining, State, keep_state
from safetensors.torch import load_file

from pilot.bench.rivals.job import Job


def main() -> None:
    """Run the job that the environment names."""
    job = Job.load()
    local = LocalTraining(job)
    state = local.initial() if job.first_round == 1 else load_file(job.state_file(job.first_round - 1))
    for number, clients in enumerate(job.schedule[job.first_round - 1 :], start=job.first_round):
        total = sum(local.num_examples(client) for client in clients)
        sums: State = {}
        for client in clients:
            for name, value in local.train(client, number, state).items():
                sums[name] = sums.get(name, 0.0) + local.num_examples(client) * value.double()
        state = {name: (value / total).float() for name, value in sums.items()}
        keep_state(job, number, state)


if __name__ == "__main__":
    main()
