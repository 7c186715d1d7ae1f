"""Losses and diagnostics of a client's phase; tensors are turned into numbers once, at the end."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pilot.methods.base import State

LOSS_DIGITS = 5
COUNTS = ("num_tokens", "num_forward_tokens")


class Recorder:
    """Collects values step by step; a step may add several times, each part with its share of the step."""

    def __init__(self) -> None:
        self.losses: dict[str, list[Tensor]] = {}
        self.diagnostics: dict[str, list[Tensor]] = {}
        self.num_tokens = 0
        self.num_forward_tokens = 0
        self._open: dict[tuple[str, str], Tensor] = {}

    def add(self, losses: Mapping[str, Tensor], diagnostics: Mapping[str, Tensor], num_tokens: int) -> None:
        """One part of a step, its values multiplied by its share."""
        for kind, values in (("loss", losses), ("diagnostic", diagnostics)):
            for name, value in values.items():
                before = self._open.get((kind, name))
                self._open[kind, name] = value.detach() if before is None else before + value.detach()
        self.num_tokens += num_tokens

    def close_step(self) -> None:
        """All parts of the step were added."""
        for (kind, name), value in self._open.items():
            (self.losses if kind == "loss" else self.diagnostics).setdefault(name, []).append(value)
        self._open = {}

    def mean(self, name: str) -> Tensor:
        """A diagnostic's mean over the steps, in the host's memory.

        Raises:
            ValueError: no step recorded it.
        """
        if name not in self.diagnostics:
            raise ValueError(f"statistic {name} is to be sent, but no step recorded it: give the phase local steps")
        return torch.stack(self.diagnostics[name]).mean(dim=0).cpu()

    def rounded_losses(self) -> dict[str, list[float | None]]:
        """Each loss by step; one that is not finite is None."""
        return {name: _rounded(values) for name, values in self.losses.items()}

    def rounded_diagnostics(self) -> dict[str, list[float | None]]:
        """Each diagnostic's mean over the steps."""
        return {name: _rounded(self.mean(name).flatten()) for name in self.diagnostics}

    def state(self) -> State:
        """Everything recorded so far, as tensors in the host's memory."""
        kinds = {"loss": self.losses, "diagnostic": self.diagnostics}
        held = {f"{kind}.{name}": torch.stack(v).cpu() for kind, of in kinds.items() for name, v in of.items()}
        return held | {name: torch.tensor(getattr(self, name)) for name in COUNTS}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; other names are ignored."""
        self.num_tokens, self.num_forward_tokens = (int(state[name]) for name in COUNTS)
        for key, value in state.items():
            kind, _, name = key.partition(".")
            if kind in ("loss", "diagnostic"):
                (self.losses if kind == "loss" else self.diagnostics)[name] = list(value.unbind(0))


def _rounded(values: Iterable[Tensor]) -> list[float | None]:
    return [round(float(value), LOSS_DIGITS) if torch.isfinite(value) else None for value in values]
