"""Auxiliary losses of the connectors, each a mean over the whole batch."""

import torch
from torch import Tensor


def difference_loss(x_t_BNC: Tensor, x_s_BNC: Tensor) -> Tensor:
    """Return the overlap of task features and client features: ||x_t^T x_s||_F^2, mean over the batch.

    Domain separation networks (Bousmalis et al., NeurIPS 2016, eq. 5) with Pilot's features. Each sample's
    features are scaled to unit Frobenius norm; the norm is detached, so that the loss rotates features instead of
    shrinking them. Uses ||A^T B||_F^2 = sum((A A^T) * (B B^T)): N x N Gram matrices, never a C x C one.

    Args:
        x_t_BNC: task features (B, N, C).
        x_s_BNC: client features (B, N, C).

    Returns:
        A scalar in 0..1; features of norm 0 count as 0.

    Raises:
        ValueError: the shapes differ or are not (B, N, C).
    """
    if x_t_BNC.ndim != 3 or x_t_BNC.shape != x_s_BNC.shape:
        raise ValueError(f"expected two tensors (B, N, C), got {tuple(x_t_BNC.shape)} and {tuple(x_s_BNC.shape)}")
    gram_t_BNN, gram_s_BNN = _unit_gram(x_t_BNC), _unit_gram(x_s_BNC)
    return (gram_t_BNN * gram_s_BNN).sum(dim=(1, 2)).mean()


def load_balance_loss(probs_BNT: Tensor) -> Tensor:
    """Return T * sum_i f_i * P_i. Fedus et al., "Switch Transformers", JMLR 2022, eq. 4-6.

    f_i is the share of all tokens of the batch whose most probable expert is i, P_i the mean probability of
    i. A token with several most probable experts counts in equal parts for each, so that a uniform router is
    neither rewarded nor pushed towards an arbitrary expert. The loss is 1 when balanced, T when one expert takes all.

    Args:
        probs_BNT: the router's probabilities (B, N, T); any leading shape is allowed.
    """
    probs = _at_least_float32(probs_BNT).flatten(end_dim=-2)
    with torch.no_grad():  # shares are counts and have no gradient
        top = (probs == probs.amax(dim=-1, keepdim=True)).to(probs.dtype)
        share_T = (top / top.sum(dim=-1, keepdim=True)).mean(dim=0)
    return probs.shape[-1] * (share_T * probs.mean(dim=0)).sum()


def router_z_loss(logits_BNT: Tensor) -> Tensor:
    """Return mean(logsumexp(logits)^2) over all tokens of the batch. Zoph et al., "ST-MoE", 2022, eq. 5.

    Args:
        logits_BNT: the router's logits (B, N, T); any leading shape is allowed.
    """
    return torch.logsumexp(_at_least_float32(logits_BNT), dim=-1).square().mean()


def _unit_gram(x_BNC: Tensor) -> Tensor:
    with torch.autocast(x_BNC.device.type, enabled=False):  # float32 products, also under autocast
        x = _at_least_float32(x_BNC)
        norm = x.detach().flatten(start_dim=1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        x = x / norm[:, None, None]
        return x @ x.transpose(1, 2)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
