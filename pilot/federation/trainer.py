"""Local training on a client: load the state, train one phase, return what may leave."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import FeatureCache
from pilot.backbone.packed.packing import IGNORED
from pilot.config.model import LearningRates
from pilot.federation.client import ClientModel, ClientReport, PhaseTask, Trained, build_client_model
from pilot.federation.optimisation import Optimiser
from pilot.federation.recorder import Recorder
from pilot.federation.shards import Batch, Example, batches, truncation
from pilot.federation.unfinished import Unfinished
from pilot.federation.validation import validate
from pilot.io.digest import digest_json
from pilot.io.seeding import seed_for
from pilot.methods.base import VALIDATION_LOSS, Method, Phase, State, Update, Work, belongs, select, untrained

SECONDS_PER_MINUTE = 60


@dataclass(frozen=True)
class TrainSettings:
    """Hyperparameters of local training; a step takes `accumulation` batches of `batch_size` examples."""

    batch_size: int
    learning_rates: LearningRates
    warmup_fraction: float
    weight_decay: float
    max_grad_norm: float
    accumulation: int = 1


@dataclass(frozen=True)
class Keeping:
    """Where and how often an unfinished phase is saved.

    Attributes:
        folder: function from client id to folder.
        minutes: minutes between saves; 0 to save after every step.
        run: digest of the run's identity, see `run_digest`.
    """

    folder: Callable[[int], Path]
    minutes: float
    run: str


class LocalTrainer:
    """Trainer for any client of a run, in this process, with one frozen backbone for all clients."""

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        settings: TrainSettings,
        features: FeatureCache,
        examples: Mapping[int, Sequence[Example]],
        keeping: Keeping | None = None,
        validation: Mapping[int, Sequence[Example]] = MappingProxyType({}),
    ) -> None:
        self.backbone, self.method, self.settings = backbone, method, settings
        self.features, self.examples, self.keeping, self.validation = features, examples, keeping, validation
        self._projector = backbone.projector()

    def run(self, task: PhaseTask, stored: State) -> Trained:
        """Train one phase of one client, from its private state or from where it was interrupted."""
        model = build_client_model(
            self.backbone, self.method, task.phase, task.info, stored, task.payload, self._projector
        )
        trainable = _set_trainable(model, task.phase)
        start = model.state()
        recorder, unfinished = Recorder(), self._unfinished(task, start)
        began, gradients = time.perf_counter(), dict[str, Tensor]()
        if task.steps:
            gradients = self._optimise(
                model, trainable, task, self._received(trainable, start, stored, task), recorder, unfinished
            )
        step_seconds = time.perf_counter() - began
        work = Work(start, model.state(), stored, task.payload, task.steps, gradients)
        handover = self.method.hand_over(task.phase, task.info, work)
        update = Update(
            client=task.info.client,
            task=task.info.task,
            num_examples=len(self.examples[task.info.client]),
            state=handover.shared,
            statistics=self._statistics(model, task, recorder),
        )
        report = _report(model, trainable, task.steps, recorder, truncation(self.examples[task.info.client]))
        before = untrained(self.method, task.phase, task.info, start, stored, task.payload)
        return Trained(update, before, handover.private, report, step_seconds)

    def _statistics(self, model: ClientModel, task: PhaseTask, recorder: Recorder) -> State:
        """Collect the statistics in `Phase.statistics`, from the steps or from the client's validation part."""
        names = sorted(task.phase.statistics)
        if not task.phase.validates:
            return {name: recorder.mean(name) for name in names}
        examples = self.validation[task.info.client]
        measured = validate(self.backbone, model.connector, self.features, examples, self.settings.batch_size)
        recorder.num_forward_tokens += measured.num_tokens
        found = {**measured.diagnostics, VALIDATION_LOSS: torch.tensor([measured.loss])}
        return {name: found[name] for name in names}

    def _received(self, trainable: Mapping[str, Tensor], start: State, stored: State, task: PhaseTask) -> State:
        """Return the values with which the method's loss terms compare, on the device; see `Method.penalty`."""
        auxiliary = select({**stored, **task.payload}, task.phase.auxiliary)
        kept = start if task.phase.distils else {name: start[name] for name in trainable}
        device = self.backbone.numerics.device
        return {name: value.to(device) for name, value in {**kept, **auxiliary}.items()}

    def _optimise(
        self,
        model: ClientModel,
        trainable: dict[str, nn.Parameter],
        task: PhaseTask,
        received: State,
        recorder: Recorder,
        unfinished: Unfinished | None,
    ) -> State:
        """Take the phase's steps; return the mean gradients if the phase asks for them."""
        settings, info = self.settings, task.info
        optimiser = Optimiser(
            trainable, self.backbone.text_adapter.keys(), settings.learning_rates.of_phase(task.phase.name),
            task.steps, settings.warmup_fraction, settings.weight_decay, settings.max_grad_norm,
            keep_gradients=task.phase.mean_gradients,
        )  # fmt: skip
        done = _go_on(unfinished, task.steps, trainable, optimiser, recorder)
        source = batches(
            self.examples[info.client], self.features, settings.batch_size,
            seed_for(info.seed, task.round_number, info.client, f"batches {task.phase.name}"), self.backbone.end,
            skip=done * settings.accumulation,
        )  # fmt: skip
        kept = time.monotonic()
        for step in range(done, task.steps):
            optimiser.begin(step)
            parts = [next(source) for _ in range(settings.accumulation)]
            self._gradients(model, trainable, received, task.phase, parts, recorder)
            if step == done:
                _require_gradients(trainable)
            optimiser.finish()
            if unfinished is not None and (step + 1 == task.steps or self._is_time(kept)):
                ended = step + 1 == task.steps and not task.phase.mean_gradients
                moments = {} if ended else optimiser.state()
                unfinished.save(step + 1, _prefixed(trainable) | moments | recorder.state())
                kept = time.monotonic()
        return optimiser.mean_gradients() if task.phase.mean_gradients else {}

    def _gradients(
        self,
        model: ClientModel,
        trainable: Mapping[str, Tensor],
        received: State,
        phase: Phase,
        parts: Sequence[Batch],
        recorder: Recorder,
    ) -> None:
        """Compute a step's gradients over its batches as for one large batch, with cross-entropy by labelled tokens.

        The connector's terms are means over equally large batches. Only the load-balance term is not linear in them:
        its shares of tokens are those of each batch.
        """
        counts = [int((batch.labels_BL != IGNORED).sum()) for batch in parts]
        for batch, count in zip(parts, counts, strict=True):
            shares = (count / sum(counts) if sum(counts) else 0.0, 1 / len(parts))
            loss = self._loss(model, trainable, received, phase, batch, shares, recorder)
            loss.backward()  # type: ignore[no-untyped-call]
        recorder.close_step()

    def _loss(
        self,
        model: ClientModel,
        trainable: Mapping[str, Tensor],
        received: State,
        phase: Phase,
        batch: Batch,
        shares: tuple[float, float],
        recorder: Recorder,
    ) -> Tensor:
        """Compute a batch's part of the loss; `shares` are its fractions of the step's labelled tokens and batches."""
        numerics, (of_tokens, of_batches) = self.backbone.numerics, shares
        with numerics.autocast():
            output = model.connector(numerics.place(batch.features_BND))
            terms = self._of_answers(model, received, phase, batch, output.tokens_BNC, recorder)
        terms = {name: term * of_tokens for name, term in terms.items()}
        total = torch.stack(list(terms.values())).sum() if len(terms) > 1 else terms["cross_entropy"]
        for name, weight in phase.loss_weights.items():
            terms[name] = output.terms[name] * of_batches
            total = total + weight * terms[name]
        penalty = self.method.penalty(dict(trainable), received)
        if penalty is not None:
            terms["penalty"] = penalty * of_batches
            total = total + terms["penalty"]
        diagnostics = {name: value * of_batches for name, value in output.diagnostics.items()}
        num_tokens = batch.ids_BL.numel() + output.tokens_BNC.shape[0] * output.tokens_BNC.shape[1]
        recorder.add({"total": total, **terms}, diagnostics, num_tokens)
        return total

    def _of_answers(
        self, model: ClientModel, received: State, phase: Phase, batch: Batch, tokens_BNC: Tensor, recorder: Recorder
    ) -> dict[str, Tensor]:
        """Compute cross-entropy and, in phases that distil, the method's term; both are means over labelled tokens."""
        place = self.backbone.numerics.place
        ids_BL, labels_BL = place(batch.ids_BL), place(batch.labels_BL)
        if not phase.distils or not (labels_BL != IGNORED).any():
            return {"cross_entropy": self.backbone.cross_entropy(tokens_BNC, ids_BL, labels_BL)}
        logits_MV, targets_M = self.backbone.logits(tokens_BNC, ids_BL, labels_BL)

        @torch.no_grad()
        def logits_of(values: State) -> Tensor:
            with model.swapped(values, self.backbone.fold_offsets):
                other_BNC = model.connector(place(batch.features_BND)).tokens_BNC
                recorder.num_forward_tokens += batch.ids_BL.numel() + other_BNC.shape[0] * other_BNC.shape[1]
                return self.backbone.logits(other_BNC, ids_BL, labels_BL)[0]

        distillation = self.method.distillation(phase, logits_MV, received, logits_of)
        return {"cross_entropy": functional.cross_entropy(logits_MV, targets_M), "distillation": distillation}

    def _is_time(self, kept: float) -> bool:
        assert self.keeping is not None, "asked only where phases are kept"
        return time.monotonic() - kept >= self.keeping.minutes * SECONDS_PER_MINUTE

    def _unfinished(self, task: PhaseTask, start: State) -> Unfinished | None:
        """Return the storage of this unfinished phase, keyed by what it starts from; None if phases are not saved."""
        if self.keeping is None:
            return None
        digest = hashlib.sha256()
        for name in sorted(start):
            digest.update(name.encode() + start[name].numpy().tobytes())
        client = task.info.client
        content = {"run": self.keeping.run, "client": client, "steps": task.steps, "start": digest.hexdigest()}
        return Unfinished(self.keeping.folder(client), task.round_number, task.phase_index, digest_json(content))


def _go_on(
    unfinished: Unfinished | None,
    num_steps: int,
    trainable: Mapping[str, nn.Parameter],
    optimiser: Optimiser,
    recorder: Recorder,
) -> int:
    """Restore what an interrupted run saved of the phase; return the number of steps already taken."""
    done, state = unfinished.load() if unfinished is not None else (0, {})
    if not done:
        return 0
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(state[f"parameter.{name}"])
    if done < num_steps or optimiser.keeps_gradients:
        optimiser.restore(state)
    recorder.restore(state)
    return done


def _prefixed(trainable: Mapping[str, Tensor]) -> State:
    return {f"parameter.{name}": value.detach().cpu() for name, value in trainable.items()}


def _report(
    model: ClientModel, trainable: Mapping[str, nn.Parameter], steps: int, recorder: Recorder, cut: dict[str, int]
) -> ClientReport:
    sizes: dict[str, int] = {}
    for name, parameter in model.parameters.items():
        group = name.split(".", 1)[0]
        sizes[group] = sizes.get(group, 0) + parameter.numel()
    adapter = sizes.get("text_adapter", 0)
    return ClientReport(
        steps=steps,
        losses=recorder.rounded_losses(),
        diagnostics=recorder.rounded_diagnostics(),
        num_tokens=recorder.num_tokens,
        parameters=sizes,
        num_trainable=sum(parameter.numel() for parameter in trainable.values()),
        num_activated=adapter + model.connector.num_activated_parameters(),
        num_forward_tokens=recorder.num_forward_tokens,
        truncated=cut,
    )


def _set_trainable(model: ClientModel, phase: Phase) -> dict[str, nn.Parameter]:
    for name, parameter in model.parameters.items():
        parameter.requires_grad_(belongs(name, phase.trainable))
        parameter.grad = None
    return {name: parameter for name, parameter in model.parameters.items() if parameter.requires_grad}


def _require_gradients(trainable: Mapping[str, nn.Parameter]) -> None:
    """Check that every trainable tensor has a gradient: one without would silently stay untrained."""
    missing = [name for name, parameter in trainable.items() if parameter.grad is None]
    if missing:
        raise RuntimeError(f"no gradient reaches {len(missing)} trainable tensors, the first is {missing[0]}")
