"""A sparse mixture of connector experts, of which a client may hold a subset (FedMoE)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pilot.connector.base import Connector, ConnectorOutput
from pilot.connector.losses import load_balance_loss
from pilot.connector.mixing import ROUTER_STD, Router, mix_experts
from pilot.connector.projector import Projector
from pilot.io.seeding import seed_for


class ExpertMixture(Connector):
    """x = sum over the top k experts of g_i psi_i(H), g = the top k of softmax(router(H)), renormalised.

    Groups: `experts.<i>` (an MLP each) and `router.<i>` (one row each, so that a client without expert i has no row
    for it either). Experts start as the projector plus small noise, router rows as small normal values; both depend on
    `seed` and i only, so they are the same on every client, whichever experts it holds.

    Args:
        projector: the backbone's projector, D -> C.
        num_experts: E.
        top_k: experts per token; all held ones if the client holds fewer.
        seed: the run's seed.
        noise: standard deviation of the experts' noise, in units of each weight matrix's standard deviation.
        held: (E,) which experts this client holds; None means all.

    Raises:
        ValueError: `held` does not have E entries or holds no expert, or `top_k` is not in 1..E.
    """

    def __init__(
        self,
        projector: Projector,
        num_experts: int,
        *,
        top_k: int,
        seed: int,
        noise: float,
        held: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        mask = [True] * num_experts if held is None else list(held)
        if len(mask) != num_experts or not any(mask):
            raise ValueError(f"held: expected {num_experts} entries with at least one true, got {mask}")
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"top_k: expected 1..{num_experts}, got {top_k}")
        self.num_experts = num_experts
        self.held = [expert for expert in range(num_experts) if mask[expert]]
        self.top_k = min(top_k, len(self.held))
        self.experts = nn.ModuleDict({str(i): _noisy_copy(projector, noise, seed, i) for i in self.held})
        self.router = nn.ModuleDict({str(i): _router_row(projector, seed, i) for i in self.held})

    def forward(self, features_BND: Tensor) -> ConnectorOutput:
        """Map vision features (B, N, D) to image tokens (B, N, C).

        Term `load_balance` over the held experts; diagnostics `activation_probabilities` (E,): the share of
        all activations (k per token) that went to each expert. They sum to 1.
        """
        logits_BNH = torch.cat([self.router[str(i)](features_BND) for i in self.held], dim=-1).float()
        probs_BNH = logits_BNH.softmax(dim=-1)
        gates_BNK, chosen_BNK = probs_BNH.topk(self.top_k, dim=-1)
        gates_BNK = gates_BNK / gates_BNK.sum(dim=-1, keepdim=True)
        gates_BNH = torch.zeros_like(probs_BNH).scatter(-1, chosen_BNK, gates_BNK)
        tokens_BNC = mix_experts(gates_BNH, [self.experts[str(i)](features_BND) for i in self.held])
        counts_H = torch.zeros_like(probs_BNH).scatter(-1, chosen_BNK, 1.0).sum(dim=(0, 1))
        activation_E = counts_H.new_zeros(self.num_experts)
        activation_E[self.held] = counts_H / counts_H.sum()
        return ConnectorOutput(
            tokens_BNC,
            terms={"load_balance": load_balance_loss(probs_BNH)},
            diagnostics={"activation_probabilities": activation_E},
        )

    def num_activated_parameters(self) -> int:
        """Return the number of parameters of the router and of k experts."""
        router, experts = (sum(p.numel() for p in module.parameters()) for module in (self.router, self.experts))
        return router + experts // len(self.held) * self.top_k


def _noisy_copy(projector: Projector, noise: float, seed: int, expert: int) -> Projector:
    copy = projector.duplicate()
    generator = torch.Generator().manual_seed(seed_for("expert", seed, expert))
    with torch.no_grad():
        for layer in copy.layers:
            values = torch.randn(layer.weight.shape, generator=generator).to(layer.weight)
            layer.weight += noise * layer.weight.std() * values
    return copy


def _router_row(projector: Projector, seed: int, expert: int) -> Router:
    row = Router(projector.layers[0].weight, 1)
    generator = torch.Generator().manual_seed(seed_for("router", seed, expert))
    with torch.no_grad():
        row.weight.copy_(ROUTER_STD * torch.randn(row.weight.shape, generator=generator))
    return row
