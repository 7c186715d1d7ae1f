"""Simulated faulty clients, for the table of faults: the update that such a client sends instead of the trained one.

With r the parameters received and t the parameters trained:

    nan         t, with the first element of every tensor set to NaN (one is enough to make a tensor useless)
    sign_flip   r - (t - r)
    scale       r + factor (t - r)
    free_rider  r
"""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from pilot.methods.base import State

AttackKind = Literal["nan", "sign_flip", "scale", "free_rider"]
DEFAULT_FACTOR = 10.0


def corrupt(kind: AttackKind, state: State, received: State, factor: float = DEFAULT_FACTOR) -> State:
    """Return the update of a faulty client: new tensors, computed in float64, in the dtypes of `state`.

    Args:
        kind: see the module docstring.
        state: t, the update that an honest client would send.
        received: r, the values of the same tensors before training; may hold other tensors, too.
        factor: used by `scale` only.

    Raises:
        ValueError: the kind is unknown, or `received` lacks a tensor of `state` or has it in another shape.
    """
    rules: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
        "nan": lambda trained, before: _with_nan(trained),
        "sign_flip": lambda trained, before: before - (trained - before),
        "scale": lambda trained, before: before + factor * (trained - before),
        "free_rider": lambda trained, before: before.clone(),
    }
    if kind not in rules:
        raise ValueError(f"attack: expected one of {', '.join(get_args(AttackKind))}, got {kind!r}")
    result = {}
    for name, trained in state.items():
        if name not in received or received[name].shape != trained.shape:
            raise ValueError(f"{name}: the values before training are missing or of another shape")
        result[name] = rules[kind](trained.detach().double(), received[name].detach().double()).to(trained.dtype)
    return result


def _with_nan(trained: Tensor) -> Tensor:
    result = trained.clone(memory_format=torch.contiguous_format)
    result.view(-1)[:1] = torch.nan
    return result
