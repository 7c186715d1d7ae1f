"""The interface that every method implements.

A method defines the connector between image features and LLM, the phases of a round and the parameter groups trained
in each, the groups that leave the client, the terms that the local objective adds to cross-entropy, and how the server
combines updates. It touches no disk, process or device.

At the start of a phase a client overwrites its stored state with the payload (`initial_state`), trains the phase's
trainable groups, stores everything, and sends the phase's shared groups (`split_result`). All hooks are pure functions
of their arguments.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from pilot.connector.base import Connector, PlainConnector
from pilot.connector.projector import Projector
from pilot.methods.mean import Mean, check_state, weighted_mean
from pilot.methods.mixed_lora import Mixture
from pilot.methods.state import State, belongs, group_of, prefixed, select, unprefixed, view_like, without

__all__ = [
    "ClientInfo", "SplitResult", "Mean", "Method", "Phase", "ServerState", "State", "Update", "PhaseResult",
    "belongs", "sort_by_client", "check_state", "group_of", "view_like", "prefixed", "select",
    "unprefixed", "untrained_state", "weighted_mean", "without",
]  # fmt: skip

VALIDATION_LOSS = "validation_loss"  # a statistic of phases with `validates`


@dataclass(frozen=True)
class ClientInfo:
    """A client's partition id and task, all tasks in the scenario's order, and the run's seed.

    Task names contain no ".", which ends a group's name: tensors of a task `vqa.text` would also belong to `vqa`.
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
    """A period of local training followed by an aggregation.

    Wherever a group is expected, `group:part` selects those of its tensors whose names end in `.part`, one or two
    words: `text_adapter:lora_B`, `text_adapter:q_proj.lora_B`.

    Attributes:
        name: its name in `rounds.jsonl`.
        trainable: groups that receive gradients; all others are frozen.
        shared: groups that leave the client.
        share_of_steps: fraction of the round's local steps, in 0..1; the phases of a round sum to 1.
        loss_weights: weight of each of the connector's loss terms.
        statistics: diagnostics of the connector, means over the phase's steps, that are sent too, and their shapes.
        validates: whether the statistics are those of the trained model on the client's validation part instead;
            `validation_loss` (1,), the cross-entropy per answer token, may then be among them.
        auxiliary: groups that are sent, received or kept without being parameters of the model.
        mean_gradients: whether `PhaseResult.gradients` is computed.
        distils: whether `Method.distillation` is called in every step.
        questions: whether the result has `question_feature.own`; see `pilot.methods.mixed_lora`.
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
    questions: bool = False


@dataclass(frozen=True)
class PhaseResult:
    """The result of a phase on a client.

    Attributes:
        start: every parameter of the client's model when the phase began.
        end: the same when it ended; equal to `start` when the server computes what a client would send.
        stored: the state that the client had kept.
        payload: the state that it had received.
        steps: number of optimiser steps.
        gradients: mean gradient of each trainable parameter over the steps, including the penalty's, before clipping;
            empty unless the phase has `mean_gradients`.
    """

    start: State
    end: State
    stored: State
    payload: State
    steps: int
    gradients: State = field(default_factory=dict)


@dataclass(frozen=True)
class SplitResult:
    """What leaves a client after a phase, and what it keeps."""

    shared: State
    private: State


@dataclass(frozen=True)
class Update:
    """A client's message after a phase; `num_examples` is its weight in means."""

    client: int
    task: str
    num_examples: int
    state: State
    statistics: State = field(default_factory=dict)


@dataclass(frozen=True)
class ServerState:
    """The server's state between phases; a checkpoint of it is enough to resume.

    Attributes:
        shared: tensors that belong to no single client, under names chosen by the method.
        per_client: tensors of single clients, by client id.
        record: JSON values about the last aggregation, written under `aggregation` in `rounds.jsonl`.
    """

    shared: State = field(default_factory=dict)
    per_client: Mapping[int, State] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base class of all methods; by default nothing leaves a client.

    Class attributes:
        name: its name in the registry.
        exchanges: whether anything leaves the clients.
        pooled: whether one model is trained on all clients' data together.
        single_model: whether all clients end with the same model.
        offsets: whether the model has parameters `offset.<layer>.weight`, frozen, float32, of the shape of the LLM's
            linear layers: with D the offset, a layer's weight is W + s (D + B A).
        trains_language: whether the model has the LLM's own parameters, `language.<path>`, float32.
        asynchronous: whether the server takes updates one by one as they arrive on a virtual clock (`arrive`); then a
            round has one phase and clients keep nothing.
        mean_product: whether the server's LoRA factors and offsets, under the names of the model's, are meant to have
            the mean of the clients' products, by which aggregation drift is then measured.
    """

    name: ClassVar[str]
    exchanges: ClassVar[bool] = True
    pooled: ClassVar[bool] = False
    single_model: ClassVar[bool]
    offsets: ClassVar[bool] = False
    trains_language: ClassVar[bool] = False
    mean_product: ClassVar[bool] = False
    asynchronous: ClassVar[bool] = False

    @abstractmethod
    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return the phases of a round; rounds count from 1."""

    def newcomer_phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return the phases of a client without private state: some that share nothing, then the round's own."""
        return self.phases(round_number)

    def make_connector(
        self, phase: Phase, client: ClientInfo, projector: Projector, received: State | None = None
    ) -> Connector:
        """Build the connector with its initial values, which depend only on the arguments.

        Shared groups start equal on every client. `received` is the payload.
        """
        return PlainConnector(projector)

    def mixture(self, phase: Phase, received: State) -> Mixture | None:
        """Return which LoRAs the LLM's layers mix in a phase, given its payload; None for the client's own alone."""
        return None

    def final_phase(self, rounds: int) -> Phase | None:
        """Return the phase whose model is evaluated: the last one, or None where nothing is trained."""
        phases = self.phases(rounds)
        return phases[-1] if phases else None

    def initial_state(self, phase: Phase, client: ClientInfo, stored: State, payload: State) -> State:
        """Return the values that a phase starts from, in place of the model's initial ones; names it lacks are ignored.

        By default they are the client's stored state, overwritten by the payload.
        """
        return {**stored, **without(payload, phase.auxiliary)}

    def penalty(self, trainable: State, received: State) -> Tensor | None:
        """Return the term that the local objective adds to cross-entropy and the connector's terms, if any.

        Args:
            trainable: the current trainable parameters, with gradients.
            received: their values at the start of the phase, and the tensors of its auxiliary groups that the client
                had kept and received.
        """
        return None

    def distillation(
        self, phase: Phase, logits_MV: Tensor, received: State, logits_of: Callable[[State], Tensor]
    ) -> Tensor:
        """Compute a loss term from the logits of the M labelled tokens, in phases that distil.

        Args:
            phase: the phase.
            logits_MV: logits of the model in training, with gradients.
            received: as in `penalty`, and every frozen parameter.
            logits_of: computes (M, V) logits of the same tokens, without gradients, with the given parameters in
                place of the model's own.
        """
        raise NotImplementedError(
            f"{self.name}: phase {phase.name} distils, but the method does not implement `distillation`"
        )

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Split a phase's result into what leaves the client and what it keeps.

        By default the shared groups leave; the client keeps its stored state and all parameters that neither leave nor
        came with the payload. Names and shapes of what leaves must not depend on values, since the server calls this
        on untrained values to learn what to expect.
        """
        shared = select(result.end, phase.shared)
        own = {name: value for name, value in result.end.items() if name not in shared and name not in result.payload}
        return SplitResult(shared, {**result.stored, **own})

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Return the server's state before round 1.

        Args:
            initial: what a client would send in the first phase without training: the model that all start from.
            clients: all clients, ordered.
        """
        return ServerState()

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return what a client receives at the start of a phase, named as in the client's model."""
        return {}

    def largest_messages(self) -> "Method":
        """Return the method with the options under which messages are largest, if their size depends on training."""
        return self

    def newcomer_state(self, server: ServerState, client: ClientInfo, initial: State) -> State:
        """Return what a client that took no part in training starts from, besides the payload of its first phase.

        `server` is the state after the last round, `initial` LoRA before training. In training the payload is all.
        """
        return {}

    def rejection_reason(self, phase: Phase, update: Update) -> str:
        """Return why an update of valid names, shapes and types is rejected; empty if it is accepted."""
        return ""

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Return the server's state after a phase.

        Args:
            phase: the phase that was trained.
            updates: at least one, all checked, ordered by client, to be iterated once; some clients may be absent.
            server: the state before the phase.
            mean: mean over clients that replaces `weighted_mean`.
        """
        return ServerState(server.shared, server.per_client)

    def arrive(self, server: ServerState, client: int) -> ServerState:
        """Return the state after a client's update, given to `aggregate` at its start, has arrived, even if refused."""
        raise NotImplementedError(f"{self.name}: asynchronous, but the method does not implement `arrive`")


def untrained_state(
    method: Method, phase: Phase, client: ClientInfo, start: State, stored: State, payload: State
) -> State:
    """Return what a client would send without training: the reference for attacks, clipping, noise and checks.

    Args as in `Method.split_result` and `PhaseResult`; `stored` is empty where it is not known.
    """
    trained = select(start, phase.trainable) if phase.mean_gradients else {}
    zeros = {name: value.new_zeros(value.shape) for name, value in trained.items()}
    return method.split_result(phase, client, PhaseResult(start, start, stored, payload, 1, zeros)).shared


def sort_by_client(updates: Iterable[Update]) -> list[Update]:
    """Sort updates by client id, so that the order of arrival changes no sum."""
    return sorted(updates, key=lambda update: update.client)
