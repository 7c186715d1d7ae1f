"""(d): which closed answer did an example have? Gradients of all candidates are compared with the update.

The attacker knows image and question, and the model that the client started from. A candidate's score is the cosine of
the update with the step that training on this answer alone would take (gradient matching as in Zhu et al., NeurIPS
2019, arXiv 1906.08935, with candidates instead of an optimisation).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def match(update: Mapping[str, Tensor], gradients: Sequence[Mapping[str, Tensor]]) -> list[float]:
    """Return the cosine of an update with minus each gradient, over their common tensors; 0 for a zero vector.

    Raises:
        ValueError: they have no tensor in common.
    """
    names = [name for name in update if all(name in gradient for gradient in gradients)]
    if not names:
        raise ValueError("the message has no trained tensor")
    target = torch.cat([update[name].flatten().double() for name in names])
    steps = torch.stack([torch.cat([-each[name].flatten().double() for name in names]) for each in gradients])
    return torch.nn.functional.cosine_similarity(steps, target[None], dim=1, eps=1e-30).tolist()


def most_frequent(answers: Sequence[str], candidates: Sequence[str]) -> int:
    """Return the place of the candidate that is most frequent among public answers, the first of equals."""
    counts = [answers.count(candidate) for candidate in candidates]
    return counts.index(max(counts))
