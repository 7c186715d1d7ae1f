"""The difference loss by its formula: the C x C matrix of each sample, written out."""

import torch
from torch import Tensor


def difference_loss(x_t_BNC: Tensor, x_s_BNC: Tensor) -> Tensor:
    """mean over samples of ||A^T B||_F^2; A and B are a sample's features over their (constant) Frobenius norms."""
    total = torch.zeros((), dtype=x_t_BNC.dtype)
    for x_t_NC, x_s_NC in zip(x_t_BNC, x_s_BNC, strict=True):
        a_NC = x_t_NC / x_t_NC.detach().square().sum().sqrt()
        b_NC = x_s_NC / x_s_NC.detach().square().sum().sqrt()
        matrix_CC = a_NC.t() @ b_NC
        total = total + (matrix_CC * matrix_CC).sum()
    return total / len(x_t_BNC)
