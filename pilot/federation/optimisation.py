"""The optimiser of a client's phase: parameter groups, schedule, steps, and state to resume an interrupted phase."""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from pilot.methods.base import State, view_like

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
SUM = "gradient_sum"


class Optimiser:
    """AdamW over a phase's trainable parameters, with linear warm-up, then cosine decay to zero.

    All parameters with the same learning rate are stored in one flat tensor; so are their gradients, and each of their
    moments. A step takes a few kernels, however many parameters there are. Every parameter and gradient becomes a view.

    Args:
        trainable: parameters by name, on one device.
        text: names that have the text adapter's rate, of LoRA or the LLM itself; all others have the connector's.
        rates: peak rates by group.
        num_steps: steps of the phase.
        warmup_fraction: share of the steps used for warm-up.
        weight_decay: AdamW's weight decay.
        max_grad_norm: gradients of a larger norm are scaled down to it.
        keep_gradients: whether `mean_gradients` will be called.
    """

    def __init__(
        self,
        trainable: Mapping[str, nn.Parameter],
        text: Collection[str],
        rates: Mapping[str, float],
        num_steps: int,
        warmup_fraction: float,
        weight_decay: float,
        max_grad_norm: float,
        keep_gradients: bool = False,
    ) -> None:
        self.trainable, self.num_steps = dict(trainable), num_steps
        self.warmup_fraction, self.max_grad_norm = warmup_fraction, max_grad_norm
        adapter = {name: parameter for name, parameter in trainable.items() if name in text}
        connector = {name: parameter for name, parameter in trainable.items() if name not in text}
        rated = [(adapter, rates["text_adapter"]), (connector, rates["connector"])]
        self._flats = [_FlatParameters(parameters, rate) for parameters, rate in rated if parameters]
        self._weight_decay, self._share = weight_decay, 0.0
        for flat in self._flats if keep_gradients else ():
            flat.moments[SUM] = torch.zeros_like(flat.values, requires_grad=False)

    def begin(self, step: int) -> None:
        """Set the learning rates of a step, counted from 0, and clear the gradients of the previous step."""
        self._share = rate_factor(step, self.num_steps, self.warmup_fraction)
        for flat in self._flats:
            flat.clear_gradients()

    def finish(self) -> None:
        """Clip the gradients and take the step."""
        for flat in self._flats:
            flat.gather_gradients()
            flat.add_to_sum()
        nn.utils.clip_grad_norm_([flat.values for flat in self._flats], self.max_grad_norm)
        with torch.no_grad():
            for flat in self._flats:
                flat.step(self._share, self._weight_decay)

    @property
    def keeps_gradients(self) -> bool:
        """True if the sum of the gradients is kept."""
        return any(SUM in flat.moments for flat in self._flats)

    def state(self) -> State:
        """Return AdamW's moments and, if kept, the sums of gradients, by parameter, in host memory."""
        return {
            f"{key}.{name}": value.to("cpu", copy=True)
            for flat in self._flats
            for key, moment in flat.moments.items()
            for name, value in flat.by_name(moment).items()
        }

    def mean_gradients(self) -> State:
        """Return the gradients before clipping, averaged over the phase's steps, by parameter, in host memory."""
        return {
            name: (value / self.num_steps).cpu()
            for flat in self._flats
            for name, value in flat.by_name(flat.moments[SUM]).items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the moments that `state` returned."""
        for flat in self._flats:
            flat.moments = {key: flat.concatenated(state, f"{key}.") for key in flat.moments}


class _FlatParameters:
    """One flat tensor of parameters, which become views of it, with their gradients and moments."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], peak: float) -> None:
        self.parameters, self.peak = _grouped_by_shape(parameters), peak
        self.values = nn.Parameter(torch.cat([value.detach().flatten() for value in self.parameters.values()]))
        self.gradients: Tensor | None = None
        count = torch.zeros((), device=self.values.device)
        zeros = (torch.zeros_like(self.values, requires_grad=False) for _ in range(2))
        self.moments: State = dict(zip(MOMENTS, (count, *zeros), strict=True))
        for name, view in self.by_name(self.values.detach()).items():
            self.parameters[name].data = view

    def by_name(self, flat: Tensor) -> State:
        """Return views of a tensor like `values` by parameter; a scalar is returned for every parameter."""
        if flat.ndim == 0:
            return dict.fromkeys(self.parameters, flat)
        return view_like(flat, self.parameters)

    def concatenated(self, state: Mapping[str, Tensor], prefix: str) -> Tensor:
        """Concatenate tensors by name into a copy on the parameters' device: the inverse of `by_name`."""
        parts = [state[prefix + name] for name in self.parameters]
        joined = parts[0].clone() if parts[0].ndim == 0 else torch.cat([part.flatten() for part in parts])
        return joined.to(self.values.device)

    def clear_gradients(self) -> None:
        """Clear the gradients: set them to None before the first `gather_gradients`, to zero afterwards."""
        if self.gradients is not None:
            self.gradients.zero_()
            return
        for parameter in self.parameters.values():
            parameter.grad = None

    def gather_gradients(self) -> None:
        """Copy the first step's gradients into one flat tensor, in which later gradients accumulate directly."""
        if self.gradients is None:
            given = [parameter.grad for parameter in self.parameters.values()]
            self.gradients = torch.cat([gradient.flatten() for gradient in given if gradient is not None])
            self.values.grad = self.gradients
            for name, view in self.by_name(self.gradients).items():
                self.parameters[name].grad = view

    def add_to_sum(self) -> None:
        """Add the gradients to their sum, if it is kept."""
        if SUM in self.moments:
            assert self.gradients is not None, "gathered before"
            self.moments[SUM].add_(self.gradients)

    def step(self, share: float, weight_decay: float) -> None:
        """Take an AdamW step with PyTorch's function; its class would import the compiler, which takes a second."""
        assert self.gradients is not None, "gathered before"
        count, mean, square = (self.moments[key] for key in MOMENTS)
        adamw(
            [self.values], [self.gradients], [mean], [square], [], [count], fused=True, amsgrad=False, beta1=0.9,
            beta2=0.95, lr=self.peak * share, weight_decay=weight_decay, eps=1e-8, maximize=False,
        )  # fmt: skip


def _grouped_by_shape(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Sort parameters so that those of one name in modules of equal shapes are adjacent and can be one tensor."""
    shapes: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, parameter in parameters.items():
        module, _, own = name.rpartition(".")
        shapes.setdefault(module, []).append((own, tuple(parameter.shape)))

    def kind(name: str) -> tuple[list[tuple[str, tuple[int, ...]]], str]:
        module, _, own = name.rpartition(".")
        return shapes[module], own

    return {name: parameters[name] for name in sorted(parameters, key=kind)}


def rate_factor(step: int, steps: int, warmup_fraction: float) -> float:
    """Return the share of the peak rate at a step, counted from 0: linear warm-up, then cosine decay to zero."""
    warmup = max(1, math.ceil(warmup_fraction * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
