"""Pilot. Xiong et al., "Pilot: Building the Federated Multimodal Instruction Tuning Framework", AAAI 2025,
arXiv 2501.13985.

Round 1, stage 1 (half of the round's steps): x = psi_t(H) + psi_s(H), L = L_ce + lambda0 L_d.
Round 1, stage 2 (the other half), and all of rounds 2..R: CT-MoA, L = L_ce + lambda1 L_b + lambda2 L_z.
After every phase the server averages task adapters within each task (task-aware visual aggregation) and mixes text
adapters of nearby clients (adaptive text aggregation). psi_s, psi_c and the router never leave the client.

Choices where the paper is silent:

- M (`num_neighbors`) is 3, and a_k (`self_weight`) depends on the numbers of examples.
- Task adapters of the other tasks are frozen during local training, and replaced by the server's latest ones
  at the start of every phase, since their own clients continue to train them in stage 2.
- The adapters' initial values (`adapter_init`), the client features in stage 2 (`client_features_in_stage2`) and the
  distance between text adapters (`distance`) are options.
- A client that was absent in round 1 trains stage 1 (`late_stage1`) when it first takes part, with half of that
  round's steps, and then continues with the others' stage 2. Nothing is sent in between: psi_s stays, and the server's
  task and text adapters, which the others have trained since, replace its own; where the server has none yet, as of the
  client's text adapter, stage 2 starts from the seed's. Without `late_stage1`, psi_s is not trained on such a client.
- Without stage 1 (`stage1=False`) round 1 is stage 2 with all steps, starting from copies of the projector.
- With experts of the own task only (`experts="own_task"`) the adapters of the other tasks are not sent, and the own
  task's adapter replaces them in every expert of stage 2.
- Without ATA (`adaptive_text_aggregation=False`) text adapters are averaged over all clients, as in FedAvg.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from pilot.connector.base import Connector
from pilot.connector.ct_moa import ClientFeatures, CrossTaskMixture, Experts
from pilot.connector.projector import Projector
from pilot.connector.two_stage import AdapterInit, TaskClientConnector
from pilot.methods.averaging import mean_of_updates
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Method,
    Phase,
    ServerState,
    State,
    Update,
    select,
    sort_by_client,
    weighted_mean,
)
from pilot.methods.text_aggregation import (
    Distance,
    Neighbourhood,
    adaptive_text_aggregation,
    mix,
    neighbourhoods_from_distances,
    pairwise_distances,
)

__all__ = ["Mixed", "Pilot", "adaptive_text_aggregation", "mix_in", "task_aware_aggregation"]

SHARED = frozenset({"task_adapter", "text_adapter"})
Mixed = tuple[list[State], dict[str, Any]]
"""Text adapters after mixing, in the order of the updates, and a record of who was mixed."""


@dataclass(frozen=True, kw_only=True)
class Pilot(Method):
    """Pilot as described in the module's docstring; every field is an option for ablations."""

    name: ClassVar[str] = "pilot"
    single_model: ClassVar[bool] = False

    lambda0: float = 0.1
    lambda1: float = 0.1
    lambda2: float = 0.01
    adapter_init: AdapterInit = "split"
    client_features_in_stage2: ClientFeatures = "add"
    self_weight: float | Literal["samples"] = "samples"
    num_neighbors: int = 3
    distance: Distance = "parameters"
    difference_loss: bool = True
    stage1: bool = True
    late_stage1: bool = True
    cross_task_adapters: bool = True
    adaptive_text_aggregation: bool = True
    experts: Experts = "all_tasks"

    def __post_init__(self) -> None:
        if min(self.lambda0, self.lambda1, self.lambda2) < 0:
            raise ValueError("lambda0, lambda1, lambda2: expected numbers of at least 0")
        if self.num_neighbors < 1:
            raise ValueError(f"num_neighbors: expected at least 1, got {self.num_neighbors}")
        if self.self_weight != "samples" and not 0 <= self.self_weight <= 1:
            raise ValueError(f"self_weight: expected 'samples' or a number in 0..1, got {self.self_weight}")
        if self.experts == "own_task" and not self.cross_task_adapters:
            raise ValueError("experts: 'own_task' needs cross_task_adapters, without which all experts are the same")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return stage 1, then stage 2, with half of the steps each in round 1; in later rounds stage 2 alone."""
        if round_number == 1 and self.stage1:
            return (self._stage1(), self._stage2(share_of_steps=0.5))
        return (self._stage2(share_of_steps=1.0),)

    def newcomer_phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return stage 1, then stage 2, in later rounds, too; of what stage 1 trains then, only psi_s is kept."""
        if round_number == 1 or not (self.stage1 and self.late_stage1):
            return self.phases(round_number)
        return (replace(self._stage1(), shared=frozenset(), discarded=SHARED), self._stage2(share_of_steps=0.5))

    def _stage1(self) -> Phase:
        return Phase(
            name="stage1",
            trainable=frozenset({"task_adapter", "client_adapter", "text_adapter"}),
            shared=SHARED,
            share_of_steps=0.5,
            loss_weights={"difference": self.lambda0 if self.difference_loss else 0.0},
        )

    def _stage2(self, share_of_steps: float) -> Phase:
        cross_task = {"cross_task_adapter"} if self.cross_task_adapters else set()
        return Phase(
            name="stage2",
            trainable=frozenset({"task_adapter", "router", "text_adapter"} | cross_task),
            shared=SHARED,
            share_of_steps=share_of_steps,
            loss_weights={"load_balance": self.lambda1, "router_z": self.lambda2},
        )

    def make_connector(
        self, phase: Phase, client: ClientInfo, projector: Projector, received: State | None = None
    ) -> Connector:
        """Build the sum of task adapter and client adapter in stage 1, CT-MoA in stage 2."""
        if phase.name == "stage1":
            return TaskClientConnector(projector, self.adapter_init)
        return CrossTaskMixture(
            projector,
            num_tasks=len(client.tasks),
            own_task=client.tasks.index(client.task),
            adapter_init=self.adapter_init,
            client_features=self.client_features_in_stage2,
            cross_task_adapters=self.cross_task_adapters,
            stage1=self.stage1,
            experts=self.experts,
            seed=client.seed,
        )

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the client's text and task adapters; in stage 2 also other tasks' adapters if they are experts."""
        state = select(server.shared, {"text_adapter"}) | dict(server.per_client.get(client.client, {}))
        for index, task in enumerate(client.tasks):
            if task == client.task:
                state |= _renamed(server.shared, f"task_adapter.{task}.", "task_adapter.")
            elif phase.name == "stage2" and self.experts == "all_tasks":
                state |= _renamed(server.shared, f"task_adapter.{task}.", f"peer_task_adapter.{index}.")
        return state

    def newcomer_state(self, server: ServerState, client: ClientInfo, initial: State) -> State:
        """Return the text adapter that the method's own mixing gives a client that has not trained; see `mix_in`."""
        return mix_in(initial, server.per_client, replace(self, self_weight=0.0).mix_text_adapters)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average task adapters within tasks and mix text adapters between clients.

        `server.shared` holds `task_adapter.<task name>.*`. A task or client without an update keeps its previous
        state. `mean` is used within tasks, and for text adapters that are averaged; it does not affect ATA's mixing.
        """
        updates = sort_by_client(updates)
        shared, per_client = dict(server.shared), dict(server.per_client)
        task_adapters = task_aware_aggregation(
            [select(update.state, {"task_adapter"}) for update in updates],
            [update.num_examples for update in updates],
            [update.task for update in updates],
            mean,
        )
        for task, adapter in task_adapters.items():
            shared |= _renamed(adapter, "task_adapter.", f"task_adapter.{task}.")
        if not self.adaptive_text_aggregation:
            return ServerState(shared | mean_of_updates(updates, {"text_adapter"}, mean), per_client)
        mixed, record = self.mix_text_adapters(updates, mean)
        per_client |= {update.client: text for update, text in zip(updates, mixed, strict=True)}
        return ServerState(shared, per_client, record)

    def mix_text_adapters(self, updates: Sequence[Update], mean: Mean = weighted_mean) -> Mixed:
        """Mix text adapters by ATA; return each client's next adapter, and a record of neighbours and weights.

        `mean` is for variants that average text adapters or a part of them.
        """
        texts = [select(update.state, {"text_adapter"}) for update in updates]
        distances = pairwise_distances(texts, self.distance)
        counts = [update.num_examples for update in updates]
        neighbourhoods = neighbourhoods_from_distances(distances, counts, self.num_neighbors, self.self_weight)
        return mix(texts, neighbourhoods), mixing_record(updates, distances, neighbourhoods)


def task_aware_aggregation(
    states: Sequence[State], num_examples: Sequence[int], tasks: Sequence[str], mean: Mean = weighted_mean
) -> dict[str, State]:
    """Average the clients' states within each task, weighted by numbers of examples.

    Args:
        states: one per client, ordered by client id.
        num_examples: n_k of each.
        tasks: the task of each.
        mean: replaces `weighted_mean`.

    Returns:
        State by task, in the order in which tasks first appear.

    Raises:
        ValueError: the lengths differ, or `weighted_mean` refuses the states.
    """
    clients = list(zip(states, num_examples, tasks, strict=True))
    return {
        task: mean((state, count) for state, count, other in clients if other == task) for task in dict.fromkeys(tasks)
    }


def mix_in(initial: State, texts: Mapping[int, State], mixing: Callable[[Sequence[Update]], Mixed]) -> State:
    """Mix a text adapter for a client that has not trained; nothing if nobody has.

    Its own adapter is the initial one, from which distances to the others' are measured. It has learned nothing, so
    `mixing` must give the client's own adapter no weight.

    Args:
        initial: LoRA before training.
        texts: the trained clients' text adapters, by client.
        mixing: mixes text adapters as `Pilot.mix_text_adapters` does.
    """
    if not texts:
        return {}
    own = {name: initial[name] for name in next(iter(texts.values()))}
    mixed, _ = mixing([Update(-1, "", 1, own), *(Update(k, "", 1, text) for k, text in sorted(texts.items()))])
    return mixed[0]


def _renamed(state: Mapping[str, Tensor], prefix: str, new_prefix: str) -> State:
    return {new_prefix + name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def mixing_record(
    updates: Sequence[Update], distances: Sequence[Sequence[float]], neighbourhoods: Sequence[Neighbourhood]
) -> dict[str, Any]:
    """Record distances, neighbours and weights by client id; `distances` has rows and columns as in `clients`."""
    ids = [update.client for update in updates]
    by_client = list(zip(map(str, ids), neighbourhoods, strict=True))
    return {
        "clients": ids,
        "distances": [[_rounded(value) for value in row] for row in distances],
        "neighbours": {client: [ids[j] for j in hood.neighbours] for client, hood in by_client},
        "weights": {client: [_rounded(weight) for weight in hood.weights] for client, hood in by_client},
        "self_weights": {client: _rounded(hood.self_weight) for client, hood in by_client},
    }


def _rounded(value: float) -> float:
    """Round to six significant digits."""
    return float(f"{value:.6g}")
