"""Stage 1 of Pilot, task-specific feature mining: a task adapter and a client adapter side by side.

Xiong et al., "Pilot: Building the Federated Multimodal Instruction Tuning Framework", AAAI 2025:
x_t = psi_t(H), x_s = psi_s(H), image tokens x = x_t + x_s, difference loss between x_t and x_s.
"""

from typing import Literal

import torch
from torch import Tensor

from pilot.connector.base import Connector, ConnectorOutput
from pilot.connector.losses import difference_loss
from pilot.connector.projector import Projector

AdapterInit = Literal["split", "copy"]


class TaskClientConnector(Connector):
    """psi_t (group `task_adapter`) plus psi_s (group `client_adapter`).

    Args:
        projector: the backbone's projector, D -> C.
        adapter_init: `split`, the adapters' initial sum is the projector's output; `copy`, each is a copy of the
            projector, as in the official code, which doubles the tokens' magnitude.
    """

    def __init__(self, projector: Projector, adapter_init: AdapterInit = "split") -> None:
        super().__init__()
        self.task_adapter, self.client_adapter = initial_adapters(projector, adapter_init)

    def forward(self, features_BND: Tensor) -> ConnectorOutput:
        """Map vision features (B, N, D) to image tokens (B, N, C); term `difference`."""
        x_t_BNC, x_s_BNC = self.task_adapter(features_BND), self.client_adapter(features_BND)
        return ConnectorOutput(x_t_BNC + x_s_BNC, terms={"difference": difference_loss(x_t_BNC, x_s_BNC)})


def initial_adapters(projector: Projector, adapter_init: AdapterInit) -> tuple[Projector, Projector]:
    """Return the untrained task adapter and client adapter, the same on every client.

    `split` gives the task adapter the even inputs of the projector's last layer and the client adapter its odd ones:
    the other inputs' columns are 0 and the bias is halved. So the two sum to the projector, but differ.

    Raises:
        ValueError: `adapter_init` is neither `split` nor `copy`.
    """
    if adapter_init not in ("split", "copy"):
        raise ValueError(f"adapter_init: expected 'split' or 'copy', got {adapter_init!r}")
    task_adapter, client_adapter = projector.duplicate(), projector.duplicate()
    if adapter_init == "split":
        with torch.no_grad():
            for start, adapter in enumerate((client_adapter, task_adapter)):
                last = adapter.layers[-1]
                last.weight[:, start::2] = 0
                if last.bias is not None:
                    last.bias.mul_(0.5)
    return task_adapter, client_adapter
