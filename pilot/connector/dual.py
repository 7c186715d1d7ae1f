"""Two connectors under a fixed gate: one shared by the clients, one private to each client.

Chen et al., "FedDAT", AAAI 2024, arXiv 2308.12305, replace one adapter by the mean of two.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pilot.connector.base import Connector, ConnectorOutput
from pilot.connector.projector import Projector


class DualConnector(Connector):
    """x = g_1 psi(H) + g_2 psi_private(H), with psi of group `connector` and psi_private of `private_connector`.

    Both start as copies of the projector. The gate, `gate.weight` (2,), is a parameter that no phase trains, so that
    other values can be loaded into it; whenever its two numbers sum to 1, the initial output is the projector's.

    Args:
        projector: the backbone's projector, D -> C.
        gate: g_1 and g_2.
    """

    def __init__(self, projector: Projector, gate: Sequence[float]) -> None:
        super().__init__()
        self.connector: Projector = projector.duplicate()
        self.private_connector: Projector = projector.duplicate()
        self.gate = Gate(gate)

    def forward(self, features_BND: Tensor) -> ConnectorOutput:
        """Map vision features (B, N, D) to image tokens (B, N, C); no auxiliary loss."""
        shared, private = self.gate.weight
        return ConnectorOutput(shared * self.connector(features_BND) + private * self.private_connector(features_BND))


class Gate(nn.Module):
    """The gate's two numbers, `weight` (2,).

    Raises:
        ValueError: not exactly two numbers.
    """

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        if len(values) != 2:
            raise ValueError(f"gate: expected two numbers, got {list(values)}")
        self.weight = nn.Parameter(torch.tensor([float(value) for value in values]))
