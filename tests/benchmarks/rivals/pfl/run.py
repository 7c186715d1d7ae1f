"""pfl: a `PyTorchModel`, federated averaging whose local part is the shared one, and `SimulatedBackend`."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from local_training import Adapters, LocalTraining, State, keep_state
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.context import CentralContext
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from pfl.stats import MappedVectorStatistics

from pilot.bench.rivals.job import Job


class Module(Adapters):
    """The trained tensors with the two methods that pfl asks of a module; there is no evaluation."""

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Refuse: the shared local training computes its own loss."""
        raise NotImplementedError

    def metrics(self, rows: torch.Tensor) -> dict[str, Weighted]:
        """Return the number of examples, since pfl evaluates in its first iteration."""
        return {"examples": Weighted(len(rows), 1)}


class Averaging(FederatedAveraging):
    """pfl's federated averaging with the shared local training."""

    def __init__(self, local: LocalTraining) -> None:
        super().__init__()
        self.local = local

    def train_one_user(
        self, initial_model_state: MappedVectorStatistics, model: PyTorchModel, user_dataset: Dataset,
        central_context: CentralContext,
    ) -> tuple[MappedVectorStatistics, Metrics]:  # fmt: skip
        """Train one client; return the difference of its model."""
        module, number = model.pytorch_model, central_context.current_central_iteration + 1
        module.load(self.local.train(int(user_dataset.user_id), number, module.state()))
        return model.get_model_difference(initial_model_state), Metrics()


class KeepState(TrainingProcessCallback):
    """Keep the server's state after each iteration."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Keep the state; do not stop."""
        state: State = model.pytorch_model.state()
        keep_state(self.job, central_iteration + 1, state)
        return False, Metrics()


def main() -> None:
    """Run the job that the environment names."""
    job = Job.load()
    local, np_seed = LocalTraining(job), job.config["seed"]
    np.random.seed(np_seed)
    users: Iterator[int] = chain.from_iterable(job.schedule)
    data = FederatedDataset(
        lambda client: Dataset([np.arange(local.num_examples(client))], user_id=str(client)), lambda: next(users)
    )
    module = Module(local.initial())
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    backend = SimulatedBackend(data, data, postprocessors=[WeightByDatapoints()])
    rounds, sampled = len(job.schedule), len(job.schedule[0])
    Averaging(local).run(
        NNAlgorithmParams(
            central_num_iterations=rounds, evaluation_frequency=rounds, train_cohort_size=sampled, val_cohort_size=0
        ),
        backend, model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=0.0, local_batch_size=None),
        callbacks=[KeepState(job)],
    )  # fmt: skip


if __name__ == "__main__":
    main()
