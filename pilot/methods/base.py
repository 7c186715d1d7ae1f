"""The protocol of a method.

A method says which connector sits between features and LLM, in which phases a round is trained and what is
trainable in each, which parameter groups leave the client, what the local objective adds to cross-entropy,
and how the server combines updates. It touches no disk, process or device.

A client at the start of a phase takes its own stored state, overwrites it with the payload (`arrive`), trains the
phase's trainable groups, stores everything, and sends the phase's shared groups (`hand_over`). All hooks are pure
functions of their arguments.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from pilot.connector.base import Connector, PlainConnector
from pilot.connector.mlp import Projector
from pilot.methods.mean import Mean, check_state, weighted_mean
from pilot.methods.state import State, belongs, group_of, like_state, prefixed, select, unprefixed, without

__all__ = [
    "Averaging", "ClientInfo", "Handover", "Mean", "Method", "Phase", "ServerState", "State", "Update", "Work",
    "belongs", "by_client", "check_state", "group_of", "like_state", "mean_of_updates", "prefixed", "select",
    "unprefixed", "untrained", "weighted_mean", "without",
]  # fmt: skip

PLAIN_GROUPS = frozenset({"text_adapter", "connector"})
VALIDATION_LOSS = "validation_loss"  # a statistic of phases that validate


@dataclass(frozen=True)
class ClientInfo:
    """Who a client is: its partition id, its task, all tasks in the scenario's order, and the run's seed.

    Tasks have no "." in their names, which ends a state's group: `vqa` would begin the names of `vqa.text`.
    """

    client: int
    task: str
    tasks: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        if dotted := [task for task in (self.task, *self.tasks) if "." in task]:
            raise ValueError(f"task {dotted[0]!r}: expected a name without dots")


@dataclass(frozen=True)
class Phase:
    """One stretch of local training followed by one aggregation.

    Where a group is expected, `group:part` names the tensors of that group whose names end in `.part` alone:
    `text_adapter:lora_B`.

    Attributes:
        name: what `rounds.jsonl` calls it.
        trainable: groups that receive gradients; all others are frozen.
        shared: groups that leave the client.
        share_of_steps: part of the round's local steps, in 0..1; the phases of a round sum to 1.
        loss_weights: weight of each of the connector's terms in the loss.
        statistics: diagnostics of the connector, averaged over the phase's steps, that leave the client too, and
            their shapes.
        validates: whether the statistics are those of the trained model on the validation part of the client's shard
            instead; `validation_loss` (1,), the cross-entropy per answer token, may then be among them.
        auxiliary: groups that are sent, received or kept without being parameters of the model.
        mean_gradients: whether `Work.gradients` is wanted.
        distils: whether `Method.distillation` is asked in every step.
    """

    name: str
    trainable: frozenset[str]
    shared: frozenset[str]
    share_of_steps: float = 1.0
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    statistics: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    validates: bool = False
    auxiliary: frozenset[str] = frozenset()
    mean_gradients: bool = False
    distils: bool = False


@dataclass(frozen=True)
class Work:
    """What a phase did on a client.

    Attributes:
        start: every parameter of its model when the phase began.
        end: when it ended. Equal to `start` where the server asks what a client would send.
        stored: what the client had kept.
        payload: what it had received.
        steps: optimiser steps.
        gradients: of the trainable parameters, their mean over the steps before clipping, the penalty's included; only
            where the phase asks for it.
    """

    start: State
    end: State
    stored: State
    payload: State
    steps: int
    gradients: State = field(default_factory=dict)


@dataclass(frozen=True)
class Handover:
    """What leaves a client after a phase, and what it keeps."""

    shared: State
    private: State


@dataclass(frozen=True)
class Update:
    """What a client sends after a phase. `num_examples` weighs it."""

    client: int
    task: str
    num_examples: int
    state: State
    statistics: State = field(default_factory=dict)


@dataclass(frozen=True)
class ServerState:
    """What the server knows between phases: a checkpoint of it is enough to go on.

    Attributes:
        shared: tensors that belong to no single client; names are the method's own.
        per_client: tensors kept for one client.
        record: JSON values about the last aggregation, shown under `aggregation` in `rounds.jsonl`.
    """

    shared: State = field(default_factory=dict)
    per_client: Mapping[int, State] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base class; the defaults are those of a method in which nothing leaves a client.

    Class attributes:
        name: as in the registry.
        exchanges: whether anything leaves the clients.
        pooled: whether one model is trained on all clients' data together.
        single_model: whether all clients end with the same model.
        offsets: whether the model has parameters `offset.<layer>.weight`, frozen, float32, of the shape of the LLM's
            linear layers: with D the offset, a layer's weight is W + s (D + B A).
    """

    name: ClassVar[str]
    exchanges: ClassVar[bool] = True
    pooled: ClassVar[bool] = False
    single_model: ClassVar[bool]
    offsets: ClassVar[bool] = False

    @abstractmethod
    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """The phases of a round; rounds count from 1."""

    def newcomer_phases(self, round_number: int) -> tuple[Phase, ...]:
        """The phases of a client without private state: ones that share nothing, then the round's own."""
        return self.phases(round_number)

    def make_connector(
        self, phase: Phase, client: ClientInfo, projector: Projector, received: State | None = None
    ) -> Connector:
        """The connector with its initial values, which depend on the arguments only.

        Groups that are shared start equal on every client. `received` is the payload of this phase, for
        methods in which the server decides what a client holds.
        """
        return PlainConnector(projector)

    def final_phase(self, rounds: int) -> Phase | None:
        """The phase whose model is evaluated: the last one; None where nothing is trained."""
        phases = self.phases(rounds)
        return phases[-1] if phases else None

    def arrive(self, phase: Phase, client: ClientInfo, stored: State, payload: State) -> State:
        """What is loaded into the client's model over its initial values: its own state, over it the payload.

        Stored names that the phase's model lacks are passed over.
        """
        return {**stored, **without(payload, phase.auxiliary)}

    def penalty(self, trainable: State, received: State) -> Tensor | None:
        """What the local objective adds to cross-entropy and the connector's terms.

        Args:
            trainable: the trainable parameters as they are now, with gradients.
            received: their values at the start of the phase, after the payload was loaded; besides, under their own
                names, what the client had kept and received of the phase's auxiliary groups.
        """
        return None

    def distillation(
        self, phase: Phase, logits_MV: Tensor, received: State, logits_of: Callable[[State], Tensor]
    ) -> Tensor:
        """A term of the loss from the logits of the M labelled tokens, in phases that distil.

        Args:
            phase: the phase.
            logits_MV: of the model in training, with gradients.
            received: as in `penalty`, and every frozen parameter.
            logits_of: (M, V) logits, without gradients, of the same tokens with these parameters in the place of the
                model's own.
        """
        raise NotImplementedError(f"{self.name}: phase {phase.name} distils, but the method does not say how")

    def hand_over(self, phase: Phase, client: ClientInfo, work: Work) -> Handover:
        """What leaves the client after a phase, and what it keeps.

        By default the shared groups leave, and it keeps what it had, with all parameters that neither leave nor came
        with the payload. Names and shapes of what leaves must not depend on values, since the server calls this on
        untrained ones to learn what to expect.
        """
        shared = select(work.end, phase.shared)
        own = {name: value for name, value in work.end.items() if name not in shared and name not in work.payload}
        return Handover(shared, {**work.stored, **own})

    def begin(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """The server before round 1.

        Args:
            initial: what a client would send in the first phase without training: the model that all start from.
            clients: all of them, ordered.
        """
        return ServerState()

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """What a client receives at the start of a phase, under the names of its own model."""
        return {}

    def reject(self, phase: Phase, update: Update) -> str:
        """Why an update of the right form is of no use to this method; empty if it is."""
        return ""

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean | None = None
    ) -> ServerState:
        """The server after a phase.

        Args:
            phase: the phase that was trained.
            updates: at least one, all checked, ordered by client, to be taken once; some clients may be absent.
            server: the server before it.
            mean: takes the place of `weighted_mean` between clients.
        """
        return ServerState(server.shared, server.per_client)


@dataclass(frozen=True, kw_only=True)
class Averaging(Method):
    """One phase a round on LoRA and a plain connector; the server keeps theta = sum_k (n_k / n) theta_k."""

    single_model: ClassVar[bool] = True

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """One phase, with all steps of the round."""
        return (Phase(name="train", trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS),)

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """The global model; nothing before the first aggregation."""
        return dict(server.shared)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean | None = None
    ) -> ServerState:
        """The mean of the updates, weighted by numbers of examples."""
        return ServerState(shared=mean_of_updates(updates, phase.shared, mean))


def untrained(method: Method, phase: Phase, client: ClientInfo, start: State, stored: State, payload: State) -> State:
    """What a client would send if it took no step: the reference of attacks, clipping and noise, and what to expect.

    Args as of `Method.hand_over` and `Work`; `stored` is empty where it is not known.
    """
    trained = select(start, phase.trainable) if phase.mean_gradients else {}
    zeros = {name: value.new_zeros(value.shape) for name, value in trained.items()}
    return method.hand_over(phase, client, Work(start, start, stored, payload, 1, zeros)).shared


def by_client(updates: Iterable[Update]) -> list[Update]:
    """Updates in the order of client ids, so that the order of arrival changes no sum."""
    return sorted(updates, key=lambda update: update.client)


def mean_of_updates(updates: Iterable[Update], groups: Collection[str], mean: Mean | None = None) -> State:
    """The mean of the updates' `groups`, weighted by numbers of examples; one update in memory at a time.

    Sums depend on the order, in the last bits: the driver hands updates on ordered by client.
    """
    return (mean or weighted_mean)((select(update.state, groups), update.num_examples) for update in updates)
