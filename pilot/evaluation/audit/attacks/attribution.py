"""(c): whose update is it? Nearest neighbours of updates without a name, by the cosine of their common tensors.

The protocol names client and task of every message, so this says what dropping names (shuffling) would hide.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Updates = Sequence[Mapping[str, Tensor]]


def similarities(rows: Updates, columns: Updates) -> Tensor:
    """Return the cosine of each update of `rows` with each of `columns`, over the tensors that all have.

    Raises:
        ValueError: they have no tensor of one name and shape.
    """
    everyone = [*rows, *columns]
    names = [
        name for name in everyone[0]
        if all(name in each and each[name].shape == everyone[0][name].shape for each in everyone)
    ]  # fmt: skip
    if not names:
        raise ValueError("updates have no tensor in common")

    def flat(updates: Updates) -> Tensor:
        vectors = torch.stack([torch.cat([each[name].flatten().double() for name in names]) for each in updates])
        return torch.nn.functional.normalize(vectors, dim=1)

    return flat(rows) @ flat(columns).T


def guess_tasks(updates: Updates, tasks: Sequence[str]) -> list[str]:
    """Guess the task of each update: that of the nearest update of another client."""
    found = similarities(updates, updates).fill_diagonal_(-torch.inf)
    return [tasks[nearest] for nearest in found.argmax(dim=1).tolist()]


def guess_clients(later: Updates, earlier: Updates, names: Sequence[int]) -> list[int]:
    """Guess the client of each later update: that of the nearest earlier one, whose clients are `names`."""
    return [names[nearest] for nearest in similarities(later, earlier).argmax(dim=1).tolist()]
