"""fluke's client and server for the task."""

from collections.abc import Iterable, Sequence

from fluke import FlukeENV
from fluke.algorithms import CentralizedFL
from fluke.client import Client
from fluke.server import Server
from local_training import Adapters, LocalTraining, keep_state
from torch.nn import CrossEntropyLoss, Module
from torch.utils.data import DataLoader

from pilot.bench.rivals.job import Job


class TaskClient(Client):
    """A client that trains with the shared local training and keeps nothing between rounds."""

    def __init__(self, index: int, local: LocalTraining) -> None:
        examples = DataLoader(range(local.num_examples(index)), batch_size=local.spec.profile.batch_size)
        super().__init__(index, examples, None, None, CrossEntropyLoss(), local_epochs=1, persistency=False)
        self.local, self.current_round = local, 0

    def local_update(self, current_round: int) -> None:
        """Note the round, which fluke does not pass to `fit`."""
        self.current_round = current_round
        super().local_update(current_round)

    def fit(self, override_local_epochs: int = 0) -> float:
        """Train the received model."""
        self.model.load(self.local.train(self.index, self.current_round, self.model.state()))
        return 0.0


class TaskServer(Server):
    """fluke's server, weighted by examples, with the clients of the job's schedule."""

    def __init__(self, job: Job, model: Adapters, clients: Sequence[Client]) -> None:
        super().__init__(model, None, clients, weighted=True)
        self.job, self.current_round = job, 0

    def get_eligible_clients(self, eligible_perc: float) -> Sequence[Client]:
        """Return the round's clients."""
        self.current_round += 1
        return [self.clients[client] for client in self.job.schedule[self.current_round - 1]]

    def aggregate(self, eligible: Sequence[Client], client_models: Iterable[Module]) -> None:
        """Average as fluke does, and keep the state."""
        super().aggregate(eligible, client_models)
        keep_state(self.job, self.current_round, self.model.state())


def run() -> None:
    """Run the job that the environment names, by fluke's `CentralizedFL`."""
    job = Job.load()
    local = LocalTraining(job)
    FlukeENV().set_eval_cfg(pre_fit=False, post_fit=False, locals=False, server=False)
    clients = [TaskClient(client, local) for client in range(job.num_clients)]
    server = TaskServer(job, Adapters(local.initial()), clients)
    share = len(job.schedule[0]) / job.num_clients
    CentralizedFL(job.num_clients, None, None, clients, server).run(len(job.schedule), share)
