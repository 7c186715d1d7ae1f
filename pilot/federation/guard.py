"""What may leave a client, and what the server accepts.

An update that breaks a rule is left out of the aggregation with its reason, so the result equals the round without
that client.
"""

import math
from collections.abc import Sequence

import torch

from pilot.methods.base import Phase, State, Update, group_of


class PrivacyError(RuntimeError):
    """A method tried to send a parameter group that it does not declare as shared."""


def check_outgoing(update: Update, phase: Phase) -> None:
    """Refuse to send anything but the declared groups and statistics.

    Raises:
        PrivacyError: naming the tensor.
    """
    for name in update.state:
        if group_of(name) not in phase.shared:
            raise PrivacyError(f"client {update.client}: {name} may not leave the client in phase {phase.name}")
    for name in update.statistics:
        if name not in phase.statistics:
            raise PrivacyError(f"client {update.client}: statistic {name} may not leave the client")


def split_updates(
    updates: Sequence[Update], expected: dict[int, State], phase: Phase, known_examples: dict[int, int]
) -> tuple[list[Update], list[dict[str, object]]]:
    """Accepted updates ordered by client, and one `{"client", "reason"}` per excluded one.

    Args:
        updates: what came back, in any order.
        expected: per client, tensors of the names, shapes and dtypes that it should send.
        phase: the phase that was trained.
        known_examples: per client, the number of examples it has registered.
    """
    accepted, excluded = [], []
    for update in sorted(updates, key=lambda candidate: candidate.client):
        reason = reason_to_exclude(update, expected[update.client], phase, known_examples[update.client])
        if reason:
            excluded.append({"client": update.client, "reason": reason})
        else:
            accepted.append(update)
    return accepted, excluded


def reason_to_exclude(update: Update, expected: State, phase: Phase, num_examples: int) -> str:
    """Why an update is not aggregated; empty if it is fine."""
    if not (math.isfinite(update.num_examples) and update.num_examples > 0):
        return f"num_examples is {update.num_examples}, expected a positive number"
    if update.num_examples != num_examples:
        return f"num_examples is {update.num_examples}, the client registered {num_examples}"
    private = sorted({group_of(name) for name in update.state} - phase.shared)
    if private:
        return f"group {private[0]} may not leave the client"
    if update.state.keys() != expected.keys():
        name = sorted(update.state.keys() ^ expected.keys())[0]
        return f"{'unexpected' if name in update.state else 'missing'} tensor {name}"
    if update.statistics.keys() != phase.statistics:
        name = sorted(update.statistics.keys() ^ phase.statistics)[0]
        return f"{'unexpected' if name in update.statistics else 'missing'} statistic {name}"
    for name, value in [*update.state.items(), *update.statistics.items()]:
        like = expected.get(name)
        if like is not None and (value.shape != like.shape or value.dtype != like.dtype):
            return f"{name}: {value.dtype} {tuple(value.shape)}, expected {like.dtype} {tuple(like.shape)}"
        if not bool(torch.isfinite(value).all()):
            return f"{name}: not finite"
    return ""
