"""Rules for what may leave a client and what the server accepts.

An update that breaks a rule is excluded from the aggregation, and the reason is recorded; the result equals that of the
round without the client.
"""

import math

import torch

from pilot.methods.base import Phase, State, Update, belongs


class LeakError(RuntimeError):
    """A method's attempt to send a parameter group or statistic that it does not declare."""


def check_outgoing(update: Update, phase: Phase) -> None:
    """Refuse to send anything but the declared groups and statistics.

    Raises:
        LeakError: a tensor or statistic is not declared; the message names it.
    """
    for name in update.state:
        if not belongs(name, phase.shared):
            raise LeakError(f"client {update.client}: {name} may not leave the client in phase {phase.name}")
    for name in update.statistics:
        if name not in phase.statistics:
            raise LeakError(f"client {update.client}: statistic {name} may not leave the client")


def reason_to_exclude(update: Update, expected: State, phase: Phase, task: str, num_examples: int) -> str:
    """Return why an update must not be aggregated; empty if it is valid.

    Args:
        update: the client's update.
        expected: tensors with the names, shapes and dtypes that the client should send.
        phase: the phase that was trained.
        task: the task that the client has registered.
        num_examples: the number of examples that the client has registered.
    """
    if update.task != task:
        return f"task is {update.task}, the client registered {task}"
    if not (math.isfinite(update.num_examples) and update.num_examples > 0):
        return f"num_examples is {update.num_examples}, expected a positive number"
    if update.num_examples != num_examples:
        return f"num_examples is {update.num_examples}, the client registered {num_examples}"
    private = sorted(name for name in update.state if not belongs(name, phase.shared))
    if private:
        return f"{private[0]} may not leave the client"
    if update.state.keys() != expected.keys():
        name = sorted(update.state.keys() ^ expected.keys())[0]
        return f"{'unexpected' if name in update.state else 'missing'} tensor {name}"
    if update.statistics.keys() != phase.statistics.keys():
        name = sorted(update.statistics.keys() ^ phase.statistics.keys())[0]
        return f"{'unexpected' if name in update.statistics else 'missing'} statistic {name}"
    like = {name: (value.dtype, tuple(value.shape)) for name, value in expected.items()}
    like |= {name: (torch.float32, shape) for name, shape in phase.statistics.items()}
    for name, value in [*update.state.items(), *update.statistics.items()]:
        if (value.dtype, tuple(value.shape)) != like[name]:
            return f"{name}: {value.dtype} {tuple(value.shape)}, expected {like[name][0]} {like[name][1]}"
        if not _is_finite(value):
            return f"{name}: not finite"
    return ""


def _is_finite(value: torch.Tensor) -> bool:
    """Check the sum; if it is not finite, check element by element."""
    return math.isfinite(float(value.sum())) or bool(torch.isfinite(value).all())
