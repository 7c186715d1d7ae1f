"""Losses and diagnostics of a client's phase; tensors are converted to numbers once, at the end."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pilot.methods.base import State
from pilot.methods.mixed_lora import QUESTION

LOSS_DIGITS = 5
COUNTS = ("num_tokens", "num_forward_tokens")


class Recorder:
    """Values collected step by step; a step may consist of several parts, each weighted by its share of the step."""

    def __init__(self) -> None:
        self.losses: dict[str, list[Tensor]] = {}
        self.diagnostics: dict[str, list[Tensor]] = {}
        self.num_tokens = 0
        self.num_forward_tokens = 0
        self._open: dict[tuple[str, str], Tensor] = {}

    def add(self, losses: Mapping[str, Tensor], diagnostics: Mapping[str, Tensor], num_tokens: int) -> None:
        """Add one part of a step, with its values already multiplied by its share."""
        for kind, values in (("loss", losses), ("diagnostic", diagnostics)):
            for name, value in values.items():
                before = self._open.get((kind, name))
                self._open[kind, name] = value.detach() if before is None else before + value.detach()
        self.num_tokens += num_tokens

    def close_step(self) -> None:
        """Close a step after all its parts have been added."""
        for (kind, name), value in self._open.items():
            (self.losses if kind == "loss" else self.diagnostics).setdefault(name, []).append(value)
        self._open = {}

    def mean(self, name: str) -> Tensor:
        """Return a diagnostic's mean over the steps, in host memory.

        Raises:
            ValueError: no step recorded it.
        """
        if name not in self.diagnostics:
            raise ValueError(f"statistic {name}: no step recorded a value. Give the phase at least one local step")
        return torch.stack(self.diagnostics[name]).mean(dim=0).cpu()

    def rounded_losses(self) -> dict[str, list[float | None]]:
        """Return each loss by step, rounded; a value that is not finite is None."""
        return {name: _rounded(values) for name, values in self.losses.items()}

    def rounded_diagnostics(self) -> dict[str, list[float | None]]:
        """Return each diagnostic's mean over the steps, rounded; a value that is not finite is None.

        The features of questions are left out: they leave a client only where its method sends them.
        """
        return {name: _rounded(self.mean(name).flatten()) for name in self.diagnostics if name != QUESTION}

    def state(self) -> State:
        """Return everything recorded so far, as tensors in host memory."""
        kinds = {"loss": self.losses, "diagnostic": self.diagnostics}
        held = {f"{kind}.{name}": torch.stack(v).cpu() for kind, of in kinds.items() for name, v in of.items()}
        return held | {name: torch.tensor(getattr(self, name)) for name in COUNTS}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; ignore other names."""
        self.num_tokens, self.num_forward_tokens = (int(state[name]) for name in COUNTS)
        for key, value in state.items():
            kind, _, name = key.partition(".")
            if kind in ("loss", "diagnostic"):
                (self.losses if kind == "loss" else self.diagnostics)[name] = list(value.unbind(0))


def _rounded(values: Iterable[Tensor]) -> list[float | None]:
    return [round(float(value), LOSS_DIGITS) if torch.isfinite(value) else None for value in values]
