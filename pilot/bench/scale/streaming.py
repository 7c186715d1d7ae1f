"""A round of averaging by the real driver, with clients that do not train: updates are generated on demand."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch

from pilot.federation.checkpoint import Progress
from pilot.federation.client import ClientReport, PhaseTask
from pilot.federation.driver import Driver
from pilot.federation.ledger import Ledger
from pilot.federation.participant import ClientResult
from pilot.federation.participation import Participation, schedule
from pilot.federation.rounds import Plan
from pilot.federation.store import Version
from pilot.federation.transport import Answer
from pilot.io.seeding import generator
from pilot.methods.base import ClientInfo, ServerState, State, Update
from pilot.registry import make_method

NUM_TENSORS = 40
TASK = "synthetic"


class ShiftedClients:
    """Clients, and their transport: client k sends the global model of `width` fixed numbers plus k / 1000.

    Client k has 100 + k examples.
    """

    parallel = False

    def __init__(self, count: int, width: int) -> None:
        self.num_examples = {client: 100 + client for client in range(count)}
        self.base_D = torch.from_numpy(generator(0, "base").standard_normal(width, dtype=np.float32))
        self.model = self.state(0.0)

    def driver(self) -> Driver:
        """Make the driver of one round of FedAvg over all clients."""
        clients = [ClientInfo(client, TASK, (TASK,), 0) for client in self.num_examples]
        rounds = schedule(Participation(), list(self.num_examples), 1, 0)
        steps = dict.fromkeys(self.num_examples, 0)
        plan = Plan(
            make_method("fedavg", {}),
            clients,
            self.num_examples,
            1,
            steps,
            lambda phase, info, payload: self.model,
            rounds,
        )
        return Driver(plan, self, Ledger(0))

    def start(self) -> Progress:
        """Return the progress before the round, with the global model."""
        return Progress(server=ServerState(self.model))

    def state(self, shift: float) -> State:
        """Return the global model plus `shift`, in newly allocated memory."""
        parts = self.base_D.add(shift).tensor_split(NUM_TENSORS)
        return {f"connector.{index}": part for index, part in enumerate(parts)}

    def exchange(self, tasks: Iterable[PhaseTask], progress: Callable[[int], None]) -> Iterator[Answer]:
        """Yield an update for every task, generated on demand."""
        report = ClientReport(0, {}, {}, 0, {}, 0, 0)
        for task in tasks:
            client = task.info.client
            update = Update(client, TASK, self.num_examples[client], self.state(client / 1000))
            yield ClientResult(update, report, None, 0.0, 0.0)

    def verify(self, versions: Mapping[int, Version], wait: bool = True) -> str:
        """Report no error: the clients store nothing that could be wrong."""
        return ""

    def error(self, mean: State) -> float:
        """Return the largest deviation from the exact mean: the global model plus sum_k n_k k / 1000 / sum_k n_k."""
        weights = self.num_examples
        shift = sum(weight * client / 1000 for client, weight in weights.items()) / sum(weights.values())
        return max(float((mean[name] - value).abs().max()) for name, value in self.state(shift).items())
