"""A client's part in a phase: its task, its model and its result."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pilot.backbone.backbone import Backbone
from pilot.backbone.offsets import GROUP as OFFSETS
from pilot.connector.base import Connector
from pilot.connector.projector import Projector
from pilot.federation.store import Version
from pilot.methods.base import ClientInfo, Method, Phase, State, Update, group_of, without
from pilot.methods.mixed_lora import Mixture


@dataclass(frozen=True)
class ClientReport:
    """Measurements that a client reports with its update; a loss that is not finite is None.

    `num_forward_tokens` counts the tokens of passes without gradients: those of a teacher and those on the validation
    part. `truncated` counts what the profile's `max_length` cut off; it is empty if nothing was cut.
    """

    steps: int
    losses: dict[str, list[float | None]]
    diagnostics: dict[str, list[float | None]]
    num_tokens: int
    parameters: dict[str, int]
    num_trainable: int
    num_activated: int
    num_forward_tokens: int = 0
    truncated: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingResult:
    """Result of one phase on one client.

    Attributes:
        update: the part that leaves the client.
        received: the shared groups at the start of the phase.
        private: the part that stays: parameters that are neither sent nor received with the payload.
        report: the measurements sent with the update.
        step_seconds: wall time of the optimiser steps alone.
    """

    update: Update
    received: State
    private: State
    report: ClientReport
    step_seconds: float = 0.0


@dataclass
class ClientModel:
    """Connector and LoRA of one client as one flat set of named parameters."""

    connector: Connector
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)

    def load(self, values: State, ignored: Collection[str] = ()) -> None:
        """Set parameters by name; the model may lack those in `ignored`.

        Raises:
            ValueError: the model lacks any other parameter, or a shape differs.
        """
        unknown = sorted(values.keys() - self.parameters.keys() - set(ignored))
        if unknown:
            raise ValueError(f"payload does not fit the client's model: unknown parameters {unknown[:3]}")
        with torch.no_grad():
            for name, value in values.items():
                if name not in self.parameters:
                    continue
                if self.parameters[name].shape != value.shape:
                    raise ValueError(f"{name}: shape {tuple(value.shape)} does not fit the client's model")
                self.parameters[name].copy_(value)

    @contextmanager
    def swapped(self, values: Mapping[str, Tensor], fold: Callable[[], None]) -> Iterator[None]:
        """Temporarily replace parameter values without touching existing autograd graphs.

        Args:
            values: by name, on the parameters' device.
            fold: called whenever offsets have changed.

        Raises:
            ValueError: the model lacks a name, or a shape differs.
        """
        wrong = [n for n in values if n not in self.parameters or self.parameters[n].shape != values[n].shape]
        if wrong:
            raise ValueError(f"{wrong[0]} does not fit the client's model")
        own = {name: self.parameters[name].data for name in values}
        folds = any(group_of(name) == OFFSETS for name in values)
        try:
            for name, value in values.items():
                self.parameters[name].data = value.detach().to(own[name].dtype)
            if folds:
                fold()
            yield
        finally:
            for name, value in own.items():
                self.parameters[name].data = value
            if folds:
                fold()

    def state(self) -> State:
        """Return a copy of every parameter, in host memory."""
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in self.parameters.items()}


def build_client_model(
    backbone: Backbone, method: Method, phase: Phase, info: ClientInfo, stored: State, payload: State,
    projector: Projector | None = None,
) -> ClientModel:  # fmt: skip
    """Build the client's model at the start of a phase; pass the backbone's `projector` if many models are built."""
    connector = method.make_connector(phase, info, projector or backbone.projector(), payload)
    values = method.initial_state(phase, info, stored, payload)
    ignored = stored.keys() - without(payload, phase.auxiliary).keys()
    return loaded_model(backbone, method, connector, info, values, ignored, method.mixture(phase, payload))


def loaded_model(
    backbone: Backbone, method: Method, connector: Connector, info: ClientInfo, values: State,
    ignored: Collection[str] = (), mixture: Mixture | None = None,
) -> ClientModel:  # fmt: skip
    """Build a model with these parameter values and initial values for the rest; see `ClientModel.load`."""
    connector.to(backbone.numerics.device).requires_grad_(True)
    backbone.reset_weights()
    own = backbone.offset_parameters() if method.offsets else {}
    own |= backbone.language_parameters() if method.trains_language else {}
    own |= backbone.mix(mixture)
    model = ClientModel(connector, {**dict(connector.named_parameters()), **backbone.text_adapter, **own})
    if method.starts_from_weights or not backbone.text_adapter.keys() <= values.keys():
        model.load(backbone.initial_adapter(info.seed, method.starts_from_weights))
    model.load(values, ignored)
    backbone.apply_weights()
    return model


@dataclass(frozen=True)
class PhaseTask:
    """One client's task in one phase.

    Attributes:
        phase_index: index of the phase within the round, counted from 0.
        base: the private state to start from; None for a client that has none yet.
        keep: names of versions that the client must not remove.
        payload: tensors sent by the server.
    """

    info: ClientInfo
    phase: Phase
    round_number: int
    phase_index: int
    steps: int
    payload: State
    base: Version | None = None
    keep: tuple[str, ...] = ()
