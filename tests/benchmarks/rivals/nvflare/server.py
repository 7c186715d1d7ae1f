"""NVFlare's FedAvg controller with the clients of the job's schedule."""

from typing import Any

import torch
from local_training import Adapters, LocalTraining, keep_state
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.fedavg import FedAvg

from pilot.bench.rivals.job import Job


class ScheduledFedAvg(FedAvg):
    """NVFlare's FedAvg without a persistor: the model is made and kept here."""

    def __init__(self, num_clients: int, num_rounds: int) -> None:
        super().__init__(num_clients=num_clients, num_rounds=num_rounds, persistor_id="")

    def load_model(self) -> FLModel:
        """Return the model that all clients start from, as arrays."""
        self.job = Job.load()
        self.module = Adapters(LocalTraining(self.job).initial())
        return FLModel(params={name: value.numpy() for name, value in self.module.state_dict().items()})

    def sample_clients(self, num_clients: int | None = None) -> list[str]:
        """Return the sites of the round's clients."""
        return [f"site-{client + 1}" for client in self.job.schedule[self.current_round]]

    def save_model(self, model: Any) -> None:
        """Keep the server's state."""
        self.module.load_state_dict({name: torch.as_tensor(value) for name, value in model.params.items()})
        keep_state(self.job, self.current_round + 1, self.module.state())
