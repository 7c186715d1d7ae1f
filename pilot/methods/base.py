"""The interface that every method implements.

A method defines the connector between image features and LLM, the phases of a round and the parameter groups trained
in each, the groups that leave the client, the terms that the local objective adds to cross-entropy, and how the server
combines updates. It touches no disk, process or device.

At the start of a phase a client overwrites its stored state with the payload (`initial_state`), trains the phase's
trainable groups, stores everything, and sends the phase's shared groups (`split_result`). All hooks are pure functions
of their arguments.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pilot.connector.base import Connector, PlainConnector
from pilot.connector.projector import Projector
from pilot.methods.mean import Mean, check_state, weighted_mean
from pilot.methods.mixed_lora import Mixture
from pilot.methods.phase import ClientInfo, Phase, PhaseResult, ServerState, SplitResult, Update
from pilot.methods.state import State, belongs, group_of, prefixed, select, unprefixed, view_like, without

__all__ = [
    "ClientInfo", "SplitResult", "Mean", "Method", "Phase", "ServerState", "State", "Update", "PhaseResult",
    "belongs", "sort_by_client", "check_state", "group_of", "view_like", "prefixed", "select",
    "unprefixed", "untrained_state", "weighted_mean", "without",
]  # fmt: skip

VALIDATION_LOSS = "validation_loss"  # a statistic of phases with `validates`


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
        starts_from_weights: whether LoRA starts from the largest singular values of the LLM's weights, with offsets
            that take them away (`pilot.backbone.offsets`); needs `offsets`.
        trains_language: whether the model has the LLM's own parameters, `language.<path>`, float32.
        asynchronous: whether the server takes updates one by one as they arrive on a virtual clock (`arrive`); then a
            round has one phase and clients keep nothing.
        mixes_answers: whether clients, also those that have not trained, answer in `final_phase` with a mixture of
            LoRAs that the server sends under other names than clients train them.
        mean_product: whether the server's LoRA factors and offsets, under the names of the model's, are meant to have
            the mean of the clients' products, by which aggregation drift is then measured.
    """

    name: ClassVar[str]
    exchanges: ClassVar[bool] = True
    pooled: ClassVar[bool] = False
    single_model: ClassVar[bool]
    offsets: ClassVar[bool] = False
    starts_from_weights: ClassVar[bool] = False
    trains_language: ClassVar[bool] = False
    mean_product: ClassVar[bool] = False
    mixes_answers: ClassVar[bool] = False
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

    def for_rounds(self, rounds: int) -> "Method":
        """Return the method for a run of so many rounds."""
        return self

    def initial_phase(self) -> Phase | None:
        """Return the phase whose message without training is the model that all start from: the first one, if any."""
        phases = self.phases(1)
        return phases[0] if phases else None

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

    def gradient_masks(self, phase: Phase, received: State) -> State:
        """Return factors for the gradients of trainable parameters, by name: 1 where they are trained, 0 where not.

        Parameters without one are trained whole. Args as in `penalty`.
        """
        return {}

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
        came with the payload, except `phase.discarded`. Names and shapes of what leaves must not depend on values,
        since the server calls this on untrained values to learn what to expect.
        """
        shared = select(result.end, phase.shared)
        own = {name: value for name, value in result.end.items() if name not in shared and name not in result.payload}
        return SplitResult(shared, {**result.stored, **without(own, phase.discarded)})

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Return the server's state before round 1.

        Args:
            initial: what a client would send in `initial_phase` without training: the model that all start from.
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
