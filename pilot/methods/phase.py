"""What a method describes and receives: clients, phases, their results, messages, and the server's state."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pilot.methods.state import State


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
        choices: those that are sent and hold choices made from the client's data, to which no noise can be added.
        mean_gradients: whether `PhaseResult.gradients` is computed.
        distils: whether `Method.distillation` is called in every step.
        questions: whether the result has `question_feature.own`; see `pilot.methods.mixed_lora`.
        discarded: groups of which the client keeps nothing, although they do not leave it.
        starts_from: where the initial values of the shared groups come from, if not from the seed: the phase's payload,
            earlier payloads that the client has kept, or the client's own training, which it has not sent. The server
            knows the start only with the first (it cannot measure an update's length otherwise); differential privacy
            needs one of the first two.
    """

    name: str
    trainable: frozenset[str]
    shared: frozenset[str]
    share_of_steps: float = 1.0
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    statistics: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    validates: bool = False
    auxiliary: frozenset[str] = frozenset()
    choices: frozenset[str] = frozenset()
    mean_gradients: bool = False
    distils: bool = False
    questions: bool = False
    discarded: frozenset[str] = frozenset()
    starts_from: Literal["payload", "earlier payloads", "own training"] = "payload"


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
