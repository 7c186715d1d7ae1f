"""Terms of a local objective that pull a model towards a reference or push it along a direction."""

import torch
from torch import Tensor

from pilot.methods.state import State


def squared_distance(trainable: State, reference: State) -> Tensor:
    """Compute ||theta - theta_ref||^2 over all trainable parameters, in float32.

    Args:
        trainable: theta.
        reference: theta_ref, not differentiated; may contain more names.

    Raises:
        ValueError: a trainable parameter has no reference.
    """
    now, reference_flat = _joined(trainable, reference)
    return (now - reference_flat).square().sum()


def inner_product(trainable: State, direction: State) -> Tensor:
    """Compute <g, theta> over all trainable parameters, in float32; its gradient is g.

    Args:
        trainable: theta.
        direction: g, not differentiated; may contain more names.

    Raises:
        ValueError: a trainable parameter has no direction.
    """
    now, direction_flat = _joined(trainable, direction)
    return (now * direction_flat).sum()


def _joined(trainable: State, other: State) -> tuple[Tensor, Tensor]:
    """Flatten and concatenate both states: a few kernels, however many parameters there are."""
    missing = sorted(trainable.keys() - other.keys())
    if missing:
        raise ValueError(f"no received value for {missing}")
    now, then = (torch.cat([state[name].flatten().float() for name in trainable]) for state in (trainable, other))
    return now, then.detach()
