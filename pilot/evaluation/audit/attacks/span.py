"""(a), (b): are a candidate's inputs to a trained layer in the row space of the layer's update?

The gradient of a layer y = W x is the sum of dL/dy x^T over the tokens of a batch: its rows are combinations of the
inputs x. Plain gradient descent sends a multiple of it, so that with fewer tokens than the input's width every input
lies in the row space of the message, and other inputs do not (span check as in DAGER, Petrov et al. 2024, arXiv
2405.15586; projection residual as in ProjRes, arXiv 2604.21197). AdamW divides each entry by its own size and several
steps add up: then the update has full rank, and what is left is the subspace that holds most of its energy.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

ENERGY = 0.99
"""Share of an update's squared singular values that its row space holds where the update has full rank."""
INSIDE = 1e-3
"""Mean residual up to which an image lies in the row space: rounding of the sent values tilts it a little."""
QUERY_LAYERS = ("q_proj", "k_proj", "v_proj")


def row_space(update_OI: Tensor, floor: float, energy: float = ENERGY) -> Tensor:
    """Return an orthonormal basis (K, I) of the rows of an update; singular values up to `floor` are rounding.

    Of an update of full rank, the basis of the fewest directions with `energy`; with 1, all of them.
    """
    _, values, basis = torch.linalg.svd(update_OI.double(), full_matrices=False)
    rank = int((values > floor).sum())
    if rank == update_OI.shape[1]:
        held = values.square().cumsum(0) / values.square().sum()
        rank = min(int((held < energy).sum()) + 1, rank) if energy < 1 else rank
    return basis[:rank]


def rounding_floor(start_OI: Tensor, sent_OI: Tensor) -> float:
    """Return about the largest singular value of the rounding errors of the sent values.

    An error is at most half the spacing of the type at a value, so that its standard deviation is below eps |w| / sqrt
    12; a random matrix (O, I) of that deviation has a norm of about sqrt O + sqrt I times it.
    """
    size = max(float(each.double().square().mean().sqrt()) for each in (start_OI, sent_OI))
    return torch.finfo(sent_OI.dtype).eps * size * sum(side**0.5 for side in sent_OI.shape) / 12**0.5


def residuals(inputs_NI: Tensor, basis_KI: Tensor) -> Tensor:
    """Return the share (N,) of each input's length that lies outside the row space; 0 for inputs of length 0."""
    inputs = inputs_NI.double()
    outside = inputs - inputs @ basis_KI.T @ basis_KI
    return outside.norm(dim=-1) / inputs.norm(dim=-1).clamp_min(1e-30)


def connector_basis(start: Mapping[str, Tensor], sent: Mapping[str, Tensor], energy: float = ENERGY) -> Tensor | None:
    """Return the row space of the update of all connectors' first layers in a message; None if none has moved."""
    names = [name for name in sent if name.endswith(".linear_1.weight") and name in start]
    return _joint_basis([(start[name], sent[name]) for name in names], energy)


def score_images(features_SND: Tensor, basis_KD: Tensor) -> Tensor:
    """Score images (S,) by their tokens' features: minus the mean residual."""
    return -residuals(features_SND.flatten(0, 1), basis_KD).reshape(features_SND.shape[:2]).mean(dim=1)


def verdicts(scores_S: Tensor) -> Tensor:
    """Return 1 for images that lie in the row space but for rounding, 0 for others (S,)."""
    return (scores_S > -INSIDE).double()


def score_tokens(
    start: Mapping[str, Tensor], sent: Mapping[str, Tensor], factors: Mapping[str, Tensor], inputs_VC: Tensor
) -> tuple[str, Tensor] | None:
    """Score tokens by their inputs to the first layer's queries, keys and values; name the factor that was used.

    The update of A (r, C) holds inputs themselves, that of B (C, r) their images A x, with the A that the server knows.

    Args:
        start: values before the update.
        sent: the message.
        factors: A of each layer, as far as the server knows it.
        inputs_VC: what each token of the vocabulary would be as an input.

    Returns:
        The factor, A or B, and scores (V,): minus the mean residual. None if neither factor has moved.
    """
    first = [f"text_adapter.layers.0.self_attn.{layer}" for layer in QUERY_LAYERS]
    names = [f"{layer}.lora_A" for layer in first]
    basis = _joint_basis([(start[name], sent[name]) for name in names if name in sent and name in start])
    if basis is not None:
        return "A", -residuals(inputs_VC, basis)
    found = []
    for layer in first:
        name, factor = f"{layer}.lora_B", factors.get(f"{layer}.lora_A")
        if name in sent and name in start and factor is not None:
            basis = _joint_basis([(start[name], sent[name])])
            if basis is not None:
                found.append(residuals(inputs_VC.double() @ factor.double().T, basis))
    return ("B", -torch.stack(found).mean(dim=0)) if found else None


def _joint_basis(pairs: Sequence[tuple[Tensor, Tensor]], energy: float = ENERGY) -> Tensor | None:
    """Return the row space of several updates of one width together; None if none has moved beyond rounding."""
    if not pairs:
        return None
    floor = max(rounding_floor(*pair) for pair in pairs)
    basis = row_space(torch.cat([sent.double() - start.double() for start, sent in pairs]), floor, energy)
    return basis if len(basis) else None
