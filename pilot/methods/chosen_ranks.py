"""Messages with the changes of some ranks of one LoRA factor, of one size whatever ranks were chosen.

A factor has r ranks in each of N layers, ordered by name: the rows of A, the columns of B. A message has for each layer
a mask (r,), 1 for the chosen ranks, and the chosen ranks' changes (N, chosen / N, longest), in order, padded with zeros
to the longest of all layers.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pilot.methods.state import State

GROUP = "selected"
MASK, CHANGES = f"{GROUP}.mask", f"{GROUP}.changes"


def as_rows(name: str, factor: Tensor) -> Tensor:
    """Return A as it is and B transposed, so that rows are ranks; the same back again."""
    return factor if name.endswith("lora_A") else factor.T


def changed_rows(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the change of every tensor of a factor, with ranks as rows, in order of name."""
    return [as_rows(name, end[name] - start[name]) for name in sorted(start)]


def scores(changes: Sequence[Tensor], frozen: Mapping[str, Tensor]) -> Tensor:
    """Return (N, r) norms of the changes of the products: |change of a rank| |its row or column in the other factor|.

    Args:
        changes: as `changed_rows` returns them.
        frozen: the tensors of the other factor.
    """
    others = [as_rows(name, frozen[name]) for name in sorted(frozen)]
    norms = [(a.double().norm(dim=1), b.double().norm(dim=1)) for a, b in zip(changes, others, strict=True)]
    return torch.stack([a_R * b_R for a_R, b_R in norms])


def choose(scores_NR: Tensor, per_layer: int) -> Tensor:
    """Return the mask (N, r) of the N `per_layer` highest scores, the first ones of equal scores."""
    best = scores_NR.flatten().argsort(descending=True, stable=True)[: per_layer * len(scores_NR)]
    return torch.zeros(scores_NR.numel()).index_fill(0, best, 1.0).view_as(scores_NR)


def name_masks(mask_NR: Tensor, factor: Mapping[str, Tensor]) -> State:
    """Return the masks of the factor's layers under their names in messages."""
    return dict(zip(map(mask_name, sorted(factor)), mask_NR, strict=True))


def mask_name(name: str) -> str:
    """Return the name of the mask of a tensor of LoRA."""
    return f"{MASK}.{name.partition('.')[2].rpartition('.')[0]}"


def pack(masks: Mapping[str, Tensor], changes: Sequence[Tensor]) -> State:
    """Return the message of masks and of changes of all ranks, of which it has the chosen ones."""
    longest = max(rows_RX.shape[1] for rows_RX in changes)
    pairs = zip(sorted(masks), changes, strict=True)
    chosen = [functional.pad(x_RX[masks[name].bool()], (0, longest - x_RX.shape[1])) for name, x_RX in pairs]
    return {**masks, CHANGES: torch.cat(chosen).view(len(masks), -1, longest)}


def problem_of(message: Mapping[str, Tensor]) -> str:
    """Return why the masks do not choose as many ranks as there are changes; empty if they do."""
    mask = torch.cat([value for name, value in message.items() if name.startswith(MASK)])
    count, ones, zeros = message[CHANGES][..., 0].numel(), int((mask == 1).sum()), int((mask == 0).sum())
    return "" if ones == count and ones + zeros == mask.numel() else f"{MASK}: expected {count} ones, else zeros"


def unpack(message: Mapping[str, Tensor], factor: Mapping[str, Tensor]) -> State:
    """Return the factor's tensors with the message's changes added."""
    found, changes = {}, message[CHANGES].flatten(end_dim=1)
    for name in sorted(factor):
        rows_RX, mask_R = as_rows(name, factor[name]).clone(), message[mask_name(name)].bool()
        chosen, changes = changes[: int(mask_R.sum())], changes[int(mask_R.sum()) :]
        rows_RX[mask_R] += chosen[:, : rows_RX.shape[1]]
        found[name] = as_rows(name, rows_RX)
    return found
