"""What happens on a client: load the state, train one phase, hand back what may leave."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pilot.backbone.backbone import Backbone
from pilot.backbone.features import FeatureCache
from pilot.backbone.lora import initial_state
from pilot.connector.base import Connector
from pilot.federation.shards import Batch, Example, batches
from pilot.federation.store import Version
from pilot.io.seeding import seed_for
from pilot.methods.base import ClientInfo, Method, Phase, State, Update, select

LOSS_DIGITS = 5


@dataclass(frozen=True)
class TrainSettings:
    """Hyperparameters of local training. Learning rates by group: `text_adapter`, and `connector` for the rest."""

    batch_size: int
    learning_rates: Mapping[str, float]
    warmup_fraction: float
    weight_decay: float
    max_grad_norm: float


@dataclass(frozen=True)
class ClientReport:
    """What a client's phase tells besides its update; a loss that is not finite is None."""

    steps: int
    losses: dict[str, list[float | None]]
    diagnostics: dict[str, list[float | None]]
    num_tokens: int
    parameters: dict[str, int]
    num_trainable: int
    num_activated: int


@dataclass(frozen=True)
class Trained:
    """One phase on one client.

    Attributes:
        update: what leaves the client.
        received: the shared groups as they were when the phase began.
        private: what stays: parameters that neither leave nor came with the payload.
        report: what is told besides.
    """

    update: Update
    received: State
    private: State
    report: ClientReport


@dataclass
class ClientModel:
    """Connector and LoRA of one client as one flat set of named parameters."""

    connector: Connector
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)

    def load(self, stored: State, payload: State) -> None:
        """Own state first, the payload over it.

        Raises:
            ValueError: the payload has a name that the model lacks, or a shape differs: nothing loads nowhere.
        """
        unknown = sorted(payload.keys() - self.parameters.keys())
        if unknown:
            raise ValueError(f"payload does not fit the client's model: {unknown[:3]} have no place in it")
        with torch.no_grad():
            for name, value in ({**stored, **payload}).items():
                if name not in self.parameters:
                    continue
                if self.parameters[name].shape != value.shape:
                    raise ValueError(f"{name}: shape {tuple(value.shape)} does not fit the client's model")
                self.parameters[name].copy_(value)

    def state(self) -> State:
        """A copy of every parameter."""
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}


def build_client_model(
    backbone: Backbone, method: Method, phase: Phase, info: ClientInfo, stored: State, payload: State
) -> ClientModel:
    """The client's model at the start of a phase."""
    connector = method.make_connector(phase, info, backbone.projector(), payload)
    connector.requires_grad_(True)
    model = ClientModel(connector, {**dict(connector.named_parameters()), **backbone.text_adapter})
    backbone.load_text_adapter(initial_state(backbone.text_adapter, info.seed))
    model.load(stored, payload)
    return model


@dataclass(frozen=True)
class PhaseTask:
    """One client's part in one phase.

    Attributes:
        phase_index: which of the round's phases, counted from 0.
        base: the private state to start from; None for a client that has none yet.
        keep: names of versions that the client must not remove.
        payload: what the server sends.
    """

    info: ClientInfo
    phase: Phase
    round_number: int
    phase_index: int
    steps: int
    payload: State
    base: Version | None = None
    keep: tuple[str, ...] = ()


class LocalTrainer:
    """Trains any client of a run in this process, with one frozen backbone for all of them."""

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        settings: TrainSettings,
        features: FeatureCache,
        examples: Mapping[int, Sequence[Example]],
    ) -> None:
        self.backbone, self.method, self.settings = backbone, method, settings
        self.features, self.examples = features, examples

    def run(self, task: PhaseTask, stored: State) -> Trained:
        """Train one phase of one client, from its private state."""
        model = build_client_model(self.backbone, self.method, task.phase, task.info, stored, task.payload)
        trainable = _set_trainable(model, task.phase)
        shared = select(model.state(), task.phase.shared)
        received = {name: parameter.detach().clone() for name, parameter in trainable.items()}
        recorder = _Recorder()
        if task.steps:
            self._optimise(model, trainable, received, task, recorder)
        state = model.state()
        update = Update(
            client=task.info.client,
            task=task.info.task,
            num_examples=len(self.examples[task.info.client]),
            state=select(state, task.phase.shared),
            statistics={name: recorder.mean(name) for name in sorted(task.phase.statistics)},
        )
        own = {name: state[name] for name in state if name not in update.state and name not in task.payload}
        return Trained(update, shared, {**stored, **own}, recorder.report(model, trainable, task.steps))

    def _optimise(
        self,
        model: ClientModel,
        trainable: dict[str, nn.Parameter],
        received: State,
        task: PhaseTask,
        recorder: "_Recorder",
    ) -> None:
        parameters = list(trainable.values())
        optimiser = torch.optim.AdamW(
            self._groups(trainable), betas=(0.9, 0.95), weight_decay=self.settings.weight_decay, foreach=True
        )
        peaks = [group["lr"] for group in optimiser.param_groups]
        seed = seed_for(task.info.seed, task.round_number, task.info.client, f"batches {task.phase.name}")
        source = batches(
            self.examples[task.info.client], self.features, self.settings.batch_size, seed, self.backbone.end
        )
        for step in range(task.steps):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * _schedule(step, task.steps, self.settings.warmup_fraction)
            batch = next(source)
            loss = self._loss(model, trainable, received, task.phase, batch, recorder)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if step == 0:
                _require_gradients(trainable)
            nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
            optimiser.step()

    def _loss(
        self,
        model: ClientModel,
        trainable: Mapping[str, Tensor],
        received: State,
        phase: Phase,
        batch: Batch,
        recorder: "_Recorder",
    ) -> Tensor:
        output = model.connector(batch.features_BND)
        cross_entropy = self.backbone.cross_entropy(output.tokens_BNC, batch.ids_BL, batch.labels_BL)
        terms = {"cross_entropy": cross_entropy}
        total = cross_entropy
        for name, weight in phase.loss_weights.items():
            terms[name] = output.terms[name]
            total = total + weight * output.terms[name]
        penalty = self.method.penalty(dict(trainable), received)
        if penalty is not None:
            terms["penalty"] = penalty
            total = total + penalty
        num_tokens = batch.ids_BL.numel() + output.tokens_BNC.shape[0] * output.tokens_BNC.shape[1]
        recorder.add({"total": total, **terms}, output.diagnostics, num_tokens)
        return total

    def _groups(self, trainable: Mapping[str, nn.Parameter]) -> list[dict[str, object]]:
        text = [parameter for name, parameter in trainable.items() if name in self.backbone.text_adapter]
        rest = [parameter for name, parameter in trainable.items() if name not in self.backbone.text_adapter]
        rates = self.settings.learning_rates
        groups: list[dict[str, object]] = [{"params": text, "lr": rates["text_adapter"]}]
        return [*groups, {"params": rest, "lr": rates["connector"]}] if rest else groups


class _Recorder:
    """Collects losses and diagnostics of a phase; tensors are turned into numbers once, at the end."""

    def __init__(self) -> None:
        self.losses: dict[str, list[Tensor]] = {}
        self.diagnostics: dict[str, list[Tensor]] = {}
        self.num_tokens = 0

    def add(self, losses: Mapping[str, Tensor], diagnostics: Mapping[str, Tensor], num_tokens: int) -> None:
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(value.detach())
        for name, value in diagnostics.items():
            self.diagnostics.setdefault(name, []).append(value.detach())
        self.num_tokens += num_tokens

    def mean(self, name: str) -> Tensor:
        if name not in self.diagnostics:
            raise ValueError(f"statistic {name} is to be sent, but no step recorded it: give the phase local steps")
        return torch.stack(self.diagnostics[name]).mean(dim=0)

    def report(self, model: ClientModel, trainable: Mapping[str, nn.Parameter], steps: int) -> ClientReport:
        sizes: dict[str, int] = {}
        for name, parameter in model.parameters.items():
            group = name.split(".", 1)[0]
            sizes[group] = sizes.get(group, 0) + parameter.numel()
        adapter = sizes.get("text_adapter", 0)
        return ClientReport(
            steps=steps,
            losses={name: _rounded(values) for name, values in self.losses.items()},
            diagnostics={name: _rounded(self.mean(name).flatten()) for name in self.diagnostics},
            num_tokens=self.num_tokens,
            parameters=sizes,
            num_trainable=sum(parameter.numel() for parameter in trainable.values()),
            num_activated=adapter + model.connector.num_activated_parameters(),
        )


def _rounded(values: Iterable[Tensor]) -> list[float | None]:
    return [round(float(value), LOSS_DIGITS) if torch.isfinite(value) else None for value in values]


def _set_trainable(model: ClientModel, phase: Phase) -> dict[str, nn.Parameter]:
    for name, parameter in model.parameters.items():
        parameter.requires_grad_(name.split(".", 1)[0] in phase.trainable)
        parameter.grad = None
    return {name: parameter for name, parameter in model.parameters.items() if parameter.requires_grad}


def _require_gradients(trainable: Mapping[str, nn.Parameter]) -> None:
    """A trainable tensor that no gradient reaches would silently train nothing."""
    missing = [name for name, parameter in trainable.items() if parameter.grad is None]
    if missing:
        raise RuntimeError(f"no gradient reaches {len(missing)} trainable tensors, the first is {missing[0]}")


def _schedule(step: int, steps: int, warmup_fraction: float) -> float:
    """Linear warm-up, then a cosine to zero; steps count from 0."""
    warmup = max(1, math.ceil(warmup_fraction * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
