"""(e) and (f): which examples was a model trained on, and which planted answer has it memorised? Losses say so.

The attacker computes losses on a client's model, as the server can rebuild it, and on the backbone. (e) scores an
example by how much its loss fell (calibration by difficulty as in Watson et al., ICLR 2022, arXiv 2111.08440). (f)
orders all answers that may have been planted by their losses (Carlini et al., USENIX Security 2019, arXiv 1802.08232).
"""

from collections.abc import Sequence

import torch


def score_members(model: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Return how much lower each example's loss is on the model than on the reference: larger for members.

    Raises:
        ValueError: a loss is not finite.
    """
    scores = torch.tensor(reference, dtype=torch.float64) - torch.tensor(model, dtype=torch.float64)
    if not scores.isfinite().all():
        raise ValueError("a loss is not finite")
    return list(map(float, scores))


def rank_answers(losses: Sequence[float]) -> list[float]:
    """Return the rank of each possible answer, 1 for the lowest loss; equal ones share the middle of their ranks."""
    values = torch.tensor(losses, dtype=torch.float64)
    below, equal = (values[None] < values[:, None]).sum(dim=1), (values[None] == values[:, None]).sum(dim=1)
    return list(map(float, 1 + below + (equal - 1) / 2))
