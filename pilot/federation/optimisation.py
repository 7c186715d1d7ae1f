"""The optimiser of a client's phase: groups, schedule, steps, and its state for a phase that is interrupted."""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from pilot.methods.base import State

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Optimiser:
    """AdamW over a phase's trainable parameters, linear warm-up, then a cosine to zero.

    Args:
        trainable: parameters by name.
        text: names that have the text adapter's rate; all others have the connector's.
        rates: peak rates by group.
        num_steps: of the phase.
        warmup_fraction: share of the steps.
        weight_decay: of AdamW.
        max_grad_norm: gradients of a larger norm are scaled down to it.
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
    ) -> None:
        self.trainable, self.num_steps = dict(trainable), num_steps
        self.warmup_fraction, self.max_grad_norm = warmup_fraction, max_grad_norm
        groups = [
            {"params": [p for name, p in trainable.items() if name in text], "lr": rates["text_adapter"]},
            {"params": [p for name, p in trainable.items() if name not in text], "lr": rates["connector"]},
        ]
        filled = [group for group in groups if group["params"]]
        self._adam = torch.optim.AdamW(filled, betas=(0.9, 0.95), weight_decay=weight_decay, foreach=True)
        self._peaks = [group["lr"] for group in self._adam.param_groups]

    def begin(self, step: int) -> None:
        """Set the rates of a step, counted from 0, and forget the gradients of the one before."""
        for group, peak in zip(self._adam.param_groups, self._peaks, strict=True):
            group["lr"] = peak * schedule(step, self.num_steps, self.warmup_fraction)
        self._adam.zero_grad(set_to_none=True)

    def finish(self) -> None:
        """Clip the gradients and step."""
        nn.utils.clip_grad_norm_(list(self.trainable.values()), self.max_grad_norm)
        self._adam.step()

    def state(self) -> State:
        """AdamW's moments by parameter, in the host's memory."""
        moments = {name: self._adam.state[parameter] for name, parameter in self.trainable.items()}
        return {f"{key}.{name}": own[key].cpu() for name, own in moments.items() for key in MOMENTS}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over the moments that `state` gave."""
        for name, parameter in self.trainable.items():
            own = {key: state[f"{key}.{name}"] for key in MOMENTS}
            self._adam.state[parameter] = {
                key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
                for key, value in own.items()
            }


def schedule(step: int, steps: int, warmup_fraction: float) -> float:
    """Linear warm-up, then a cosine to zero; steps count from 0."""
    warmup = max(1, math.ceil(warmup_fraction * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
