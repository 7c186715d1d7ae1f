"""Stage 2 of Pilot: CT-MoA, the cross-task mixture of adapters.

Xiong et al., "Pilot: Building the Federated Multimodal Instruction Tuning Framework", AAAI 2025. With t1 the
client's own task and t2..tT the others:

    h_1(H) = psi_t1(H)                        own task's adapter
    h_i(H) = psi_ti(H) + psi_ci(H), i > 1     another task's adapter (frozen) plus a cross-task adapter
    P      = softmax(phi(H))                  per token, every expert active
    x      = sum_i P_i h_i(H) (+ x_s)         x_s = psi_s(H), frozen

With `experts="own_task"` (an ablation) no adapter of another task takes part: h_i(H) = psi_t1(H) + psi_ci(H). A
client's cross-task adapters start equal, and a router of zeros would always give them equal gradients, so this
router starts at small normal values.

Experts and the router's outputs have the order of the scenario's tasks on every client; the paper's expert 1 is
the one at `own_task`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from pilot.connector.base import Connector, ConnectorOutput
from pilot.connector.losses import load_balance_loss, router_z_loss
from pilot.connector.mixing import ROUTER_STD, Router, mix_experts
from pilot.connector.projector import Projector
from pilot.connector.two_stage import AdapterInit, initial_adapters
from pilot.io.seeding import seed_for

ClientFeatures = Literal["add", "omit"]
Experts = Literal["all_tasks", "own_task"]


class CrossTaskMixture(Connector):
    """CT-MoA of one client.

    Groups: `task_adapter` psi_t1, `peer_task_adapter.<task index>` psi_ti, `cross_task_adapter.<task index>`
    psi_ci, `router` phi, `client_adapter` psi_s.

    The router has no bias and starts at zero: every expert has weight 1 / T on any device, and the first tokens are
    those of stage 1 (with experts of the own task they are, whatever the weights). Cross-task adapters start with zero
    output (linear_2 is zero, linear_1 the projector's) for `adapter_init="split"`, and as full copies of the projector
    for `copy`. With `stage1=False` there is no mined adapter: all task adapters start as full copies of the projector,
    and there is no client adapter.

    Args:
        projector: the backbone's projector, D -> C.
        num_tasks: T.
        own_task: index of the client's task, 0..T-1.
        adapter_init: as in stage 1.
        client_features: `add` the frozen client features of stage 1 to the mixture, or `omit` them. The official code
            computes them without using them; with `split`, `omit` lacks the client adapter's half of the projector.
        cross_task_adapters: False leaves h_i = psi_ti.
        stage1: whether stage 1 was run before.
        experts: `all_tasks`, or `own_task`, where the own task's adapter replaces psi_ti in every expert and there is
            no group `peer_task_adapter`.
        seed: the run's seed, which determines the initial router with `own_task`.

    Raises:
        ValueError: `own_task` is not a task, or an option has no such value.
    """

    def __init__(
        self,
        projector: Projector,
        num_tasks: int,
        own_task: int,
        *,
        adapter_init: AdapterInit = "split",
        client_features: ClientFeatures = "add",
        cross_task_adapters: bool = True,
        stage1: bool = True,
        experts: Experts = "all_tasks",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= own_task < num_tasks:
            raise ValueError(f"own_task: expected 0..{num_tasks - 1}, got {own_task}")
        if client_features not in ("add", "omit"):
            raise ValueError(f"client_features: expected 'add' or 'omit', got {client_features!r}")
        if experts not in ("all_tasks", "own_task"):
            raise ValueError(f"experts: expected 'all_tasks' or 'own_task', got {experts!r}")
        self.own_task, self.num_tasks, self.has_peers = own_task, num_tasks, experts == "all_tasks"
        peers = [str(task) for task in range(num_tasks) if task != own_task]
        mined_task_adapter, client_adapter = initial_adapters(projector, adapter_init)
        task_adapter = mined_task_adapter if stage1 else projector
        self.task_adapter = task_adapter.duplicate()
        if self.has_peers:
            self.peer_task_adapter = nn.ModuleDict({peer: task_adapter.duplicate() for peer in peers})
        if cross_task_adapters:
            self.cross_task_adapter = nn.ModuleDict(
                {peer: _cross_task_adapter(projector, adapter_init) for peer in peers}
            )
        self.has_cross_task_adapters = cross_task_adapters
        self.client_adapter: Projector | None = client_adapter if stage1 and client_features == "add" else None
        self.router = Router(projector.layers[0].weight, num_tasks)
        if not self.has_peers:
            generator = torch.Generator().manual_seed(seed_for("router", seed))
            with torch.no_grad():
                self.router.weight.copy_(ROUTER_STD * torch.randn(self.router.weight.shape, generator=generator))

    def forward(self, features_BND: Tensor) -> ConnectorOutput:
        """Map vision features (B, N, D) to image tokens (B, N, C).

        Terms `load_balance` and `router_z`; diagnostics `router_probabilities` (T,), the mean over tokens.
        """
        logits_BNT = self.router(features_BND).float()
        probs_BNT = logits_BNT.softmax(dim=-1)
        experts_BNC = [self._expert(task, features_BND) for task in range(self.num_tasks)]
        client_BNC = None if self.client_adapter is None else self.client_adapter(features_BND)
        return ConnectorOutput(
            mix_experts(probs_BNT, experts_BNC, client_BNC),
            terms={"load_balance": load_balance_loss(probs_BNT), "router_z": router_z_loss(logits_BNT)},
            diagnostics={"router_probabilities": probs_BNT.detach().mean(dim=(0, 1))},
        )

    def _expert(self, task: int, features_BND: Tensor) -> Tensor:
        """Compute h_i(H): (B, N, D) to (B, N, C) for all samples and tokens at once."""
        other = task != self.own_task
        adapter = self.peer_task_adapter[str(task)] if other and self.has_peers else self.task_adapter
        expert_BNC: Tensor = adapter(features_BND)
        if other and self.has_cross_task_adapters:
            expert_BNC = expert_BNC + self.cross_task_adapter[str(task)](features_BND)
        return expert_BNC


def _cross_task_adapter(projector: Projector, adapter_init: AdapterInit) -> Projector:
    adapter = projector.duplicate()
    if adapter_init == "split":
        for parameter in adapter.layers[-1].parameters():
            nn.init.zeros_(parameter)
    return adapter
