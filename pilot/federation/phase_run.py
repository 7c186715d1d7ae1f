"""A phase in progress on a client: its model, the loss of its steps, and its results."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pilot.backbone.backbone import Backbone
from pilot.backbone.language import GROUP as LANGUAGE
from pilot.backbone.lora import GROUP as LORA
from pilot.backbone.packed.packing import IGNORED
from pilot.backbone.passes import questions_of
from pilot.federation.client import ClientModel, ClientReport, PhaseTask
from pilot.federation.recorder import Recorder
from pilot.federation.shards import Batch
from pilot.methods.base import Method, PhaseResult, SplitResult, State, belongs, select, untrained_state
from pilot.methods.mixed_lora import OTHERS, OWN_QUESTIONS, QUESTION, ROUTER


class PhaseRun:
    """A client's phase in progress.

    Attributes:
        backbone: the frozen backbone, into which the client's LoRA is loaded.
        method: the run's method.
        task: the client's task.
        stored: the private state that the client had kept.
        model: the client's model.
        trainable: its parameters that receive gradients; all others are frozen.
        start: every parameter when the phase began, in host memory.
        received: values with which the method's loss terms compare, on the device; see `Method.penalty`.
        masks: factors for gradients by parameter; see `Method.gradient_masks`.
        recorder: losses, diagnostics and counts of tokens so far.
    """

    def __init__(self, backbone: Backbone, method: Method, task: PhaseTask, stored: State, model: ClientModel) -> None:
        self.backbone, self.method, self.task, self.stored, self.model = backbone, method, task, stored, model
        self.trainable = self._set_trainable()
        self.start, self.recorder = model.state(), Recorder()
        auxiliary = select({**stored, **task.payload}, task.phase.auxiliary)
        kept = self.start if task.phase.distils else {name: self.start[name] for name in self.trainable}
        device = backbone.numerics.device
        self.received: State = {name: value.to(device) for name, value in {**kept, **auxiliary}.items()}
        self.masks = method.gradient_masks(task.phase, self.received)

    def compute_gradients(self, parts: Sequence[Batch]) -> None:
        """Compute a step's gradients over its batches as for one large batch, with cross-entropy by labelled tokens.

        The connector's terms are means over equally large batches. Only the load-balance term is not linear in them:
        its shares of tokens are those of each batch.
        """
        counts = [int((batch.labels_BL != IGNORED).sum()) for batch in parts]
        for batch, count in zip(parts, counts, strict=True):
            loss = self._loss(batch, count / sum(counts) if sum(counts) else 0.0, 1 / len(parts))
            loss.backward()  # type: ignore[no-untyped-call]
        for name, mask in self.masks.items():
            gradient = self.trainable[name].grad
            if gradient is not None:
                gradient.mul_(mask)
        self.recorder.close_step()

    def require_gradients(self) -> None:
        """Check that every trainable tensor has a gradient: one without would silently stay untrained."""
        missing = [name for name, parameter in self.trainable.items() if parameter.grad is None]
        if missing:
            raise RuntimeError(f"no gradient reaches {len(missing)} trainable tensors, the first is {missing[0]}")

    def split_result(self, gradients: State) -> SplitResult:
        """Split the result into what leaves the client and what it keeps; `gradients` as in `PhaseResult`."""
        task = self.task
        end = self.model.state() | self._questions(trained=True)
        start = self.start | self._questions(trained=False)
        work = PhaseResult(start, end, self.stored, task.payload, task.steps, gradients)
        return self.method.split_result(task.phase, task.info, work)

    def untrained(self) -> State:
        """Return what the client would send without training."""
        task = self.task
        start = self.start | self._questions(trained=False)
        return untrained_state(self.method, task.phase, task.info, start, self.stored, task.payload)

    def _questions(self, *, trained: bool) -> State:
        """Return the mean feature of the questions of all steps, or zeros, if the phase asks for it."""
        if not self.task.phase.questions:
            return {}
        return {OWN_QUESTIONS: self.recorder.mean(QUESTION) if trained else torch.zeros(self.backbone.width)}

    def report(self, truncated: dict[str, int]) -> ClientReport:
        """Return the measurements so far; `truncated` counts what `max_length` cut off the client's examples."""
        sizes: dict[str, int] = {}
        for name, parameter in self.model.parameters.items():
            group = name.split(".", 1)[0]
            sizes[group] = sizes.get(group, 0) + parameter.numel()
        return ClientReport(
            steps=self.task.steps,
            losses=self.recorder.rounded_losses(),
            diagnostics=self.recorder.rounded_diagnostics(),
            num_tokens=self.recorder.num_tokens,
            parameters=sizes,
            num_trainable=sum(parameter.numel() for parameter in self.trainable.values()),
            num_activated=sum(sizes.get(group, 0) for group in (LORA, OTHERS, ROUTER, LANGUAGE))
            + self.model.connector.num_activated_parameters(),
            num_forward_tokens=self.recorder.num_forward_tokens,
            truncated=truncated,
        )

    def state(self) -> State:
        """Return the trainable parameters and the records, in host memory."""
        parameters = {f"parameter.{name}": value.detach().cpu() for name, value in self.trainable.items()}
        return parameters | self.recorder.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; ignore other names."""
        with torch.no_grad():
            for name, parameter in self.trainable.items():
                parameter.copy_(state[f"parameter.{name}"])
        self.recorder.restore(state)

    def _set_trainable(self) -> dict[str, nn.Parameter]:
        for name, parameter in self.model.parameters.items():
            parameter.requires_grad_(belongs(name, self.task.phase.trainable))
            parameter.grad = None
        return {name: parameter for name, parameter in self.model.parameters.items() if parameter.requires_grad}

    def _loss(self, batch: Batch, of_tokens: float, of_batches: float) -> Tensor:
        """Compute a batch's part of the loss, given its shares of the step's labelled tokens and batches."""
        numerics = self.backbone.numerics
        with numerics.autocast():
            output = self.model.connector(numerics.to_device(batch.features_BND))
            terms = self._answer_terms(batch, output.tokens_BNC)
        terms = {name: term * of_tokens for name, term in terms.items()}
        total = torch.stack(list(terms.values())).sum() if len(terms) > 1 else terms["cross_entropy"]
        for name, weight in self.task.phase.loss_weights.items():
            terms[name] = output.terms[name] * of_batches
            total = total + weight * terms[name]
        penalty = self.method.penalty(dict(self.trainable), self.received)
        if penalty is not None:
            terms["penalty"] = penalty * of_batches
            total = total + terms["penalty"]
        diagnostics = {name: value * of_batches for name, value in output.diagnostics.items()}
        if self.task.phase.questions:
            asked = questions_of(batch.ids_BL, batch.labels_BL)
            diagnostics[QUESTION] = self.backbone.question_features(asked).mean(dim=0) * of_batches
        self.recorder.add({"total": total, **terms}, diagnostics, _num_tokens(batch, output.tokens_BNC))
        return total

    def _answer_terms(self, batch: Batch, tokens_BNC: Tensor) -> dict[str, Tensor]:
        """Compute cross-entropy and, in phases that distil, the method's term; both are means over labelled tokens."""
        backbone, place, phase = self.backbone, self.backbone.numerics.to_device, self.task.phase
        ids_BL, labels_BL = place(batch.ids_BL), place(batch.labels_BL)
        if not phase.distils or not (labels_BL != IGNORED).any():
            return {"cross_entropy": backbone.cross_entropy(tokens_BNC, ids_BL, labels_BL)}
        logits_MV, targets_M = backbone.logits(tokens_BNC, ids_BL, labels_BL)

        @torch.no_grad()
        def logits_of(values: State) -> Tensor:
            with self.model.swapped(values, backbone.apply_weights):
                other_BNC = self.model.connector(place(batch.features_BND)).tokens_BNC
                self.recorder.num_forward_tokens += _num_tokens(batch, other_BNC)
                return backbone.logits(other_BNC, ids_BL, labels_BL)[0]

        distillation = self.method.distillation(phase, logits_MV, self.received, logits_of)
        return {"cross_entropy": functional.cross_entropy(logits_MV, targets_M), "distillation": distillation}


def _num_tokens(batch: Batch, tokens_BNC: Tensor) -> int:
    """Count the text ids and the connector's tokens of a batch."""
    return batch.ids_BL.numel() + tokens_BNC.shape[0] * tokens_BNC.shape[1]
