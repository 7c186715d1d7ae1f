"""CT-MoA as its equations read: one sample and one expert after the other, with `CrossTaskMixture`'s parameters.

    h_1(H) = psi_t1(H),  h_i(H) = psi_ti(H) + psi_ci(H) for i > 1
    P = softmax(phi(H)),  x = sum_i P_i h_i(H) + psi_s(H)

psi(h) = W_2 gelu(W_1 h + b_1) + b_2. Load balance: T sum_i f_i mean(P_i), f_i the share of tokens whose top expert is
i; router z-loss: the mean of logsumexp(phi(H))^2.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def forward(
    parameters: Mapping[str, Tensor], features_BND: Tensor, own_task: int, num_tasks: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Image tokens (B, N, C) of vision features (B, N, D), and the losses `load_balance` and `router_z`.

    Args:
        parameters: by name, as `CrossTaskMixture.named_parameters` gives them.
        features_BND: vision features.
        own_task: position of the client's own task.
        num_tasks: T.
    """
    samples, logits = [], []
    for features_ND in features_BND:
        logits_NT = functional.linear(features_ND, parameters["router.weight"])
        probs_NT = torch.softmax(logits_NT, dim=-1)
        tokens_NC = torch.zeros(())
        for task in range(num_tasks):
            expert_NC = _expert(parameters, features_ND, task, own_task)
            tokens_NC = tokens_NC + probs_NT[:, task : task + 1] * expert_NC
        if "client_adapter.linear_1.weight" in parameters:
            tokens_NC = tokens_NC + mlp(parameters, "client_adapter", features_ND)
        samples.append(tokens_NC)
        logits.append(logits_NT)
    return torch.stack(samples), losses(torch.cat(logits))


def losses(logits_MT: Tensor) -> dict[str, Tensor]:
    """Load balance and z-loss of all tokens' logits (M, T); where experts tie for the top, the first counts."""
    probs_MT = torch.softmax(logits_MT, dim=-1)
    num_tasks = logits_MT.shape[1]
    share_T = functional.one_hot(logits_MT.argmax(dim=-1), num_tasks).float().mean(dim=0)
    return {
        "load_balance": num_tasks * (share_T * probs_MT.mean(dim=0)).sum(),
        "router_z": torch.logsumexp(logits_MT, dim=-1).square().mean(),
    }


def _expert(parameters: Mapping[str, Tensor], features_ND: Tensor, task: int, own_task: int) -> Tensor:
    if task == own_task:
        return mlp(parameters, "task_adapter", features_ND)
    expert_NC = mlp(parameters, f"peer_task_adapter.{task}", features_ND)
    if f"cross_task_adapter.{task}.linear_1.weight" in parameters:
        expert_NC = expert_NC + mlp(parameters, f"cross_task_adapter.{task}", features_ND)
    return expert_NC


def mlp(parameters: Mapping[str, Tensor], name: str, features_ND: Tensor) -> Tensor:
    """The two-layer MLP whose parameters begin with `name`: (N, D) to (N, C)."""
    first, second = (
        (parameters[f"{name}.linear_{layer}.weight"], parameters[f"{name}.linear_{layer}.bias"]) for layer in (1, 2)
    )
    return functional.linear(functional.gelu(functional.linear(features_ND, *first)), *second)
