"""Flower's ClientApp and strategy for the task; a module of its own, so that Ray's workers can import it."""

from collections.abc import Iterable
from functools import cache

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from local_training import Adapters, LocalTraining, keep_state

from pilot.bench.rivals.job import Job

app = ClientApp()


@cache
def local_training() -> LocalTraining:
    """Load the task once in each process."""
    return LocalTraining(Job.load())


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the client that the message names."""
    local, config = local_training(), message.content["config"]
    client, number = int(config["client"]), int(config["server-round"])
    model = Adapters(local.initial())
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    model.load(local.train(client, number, model.state()))
    metrics = MetricRecord({"num-examples": local.num_examples(client)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


class ScheduledFedAvg(FedAvg):
    """Flower's FedAvg; the nodes that it samples train the clients of the job's schedule."""

    def __init__(self, job: Job, model: Adapters) -> None:
        sampled = len(job.schedule[0])
        super().__init__(
            fraction_train=sampled / job.num_clients, min_train_nodes=sampled, fraction_evaluate=0.0,
            min_available_nodes=job.num_clients,
        )  # fmt: skip
        self.job, self.model = job, model

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample as many nodes as the round has clients, and tell each node its client."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message, client in zip(messages, self.job.schedule[server_round - 1], strict=True):
            own = ConfigRecord({"server-round": server_round, "client": client})
            message.content = RecordDict({"arrays": arrays, "config": own})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average as Flower does, and keep the state."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert arrays is not None, "every client answers"
        self.model.load_state_dict(arrays.to_torch_state_dict())
        keep_state(self.job, server_round, self.model.state())
        return arrays, metrics
