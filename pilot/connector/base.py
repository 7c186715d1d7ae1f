"""Base classes of connectors, which map frozen vision features to image tokens of the LLM."""

from collections.abc import Collection
from dataclasses import dataclass, field

from torch import Tensor, nn

from pilot.connector.projector import Projector


@dataclass(frozen=True)
class ConnectorOutput:
    """Image tokens, auxiliary losses and diagnostics of a connector.

    Attributes:
        tokens_BNC: image tokens (B, N, C) for the LLM.
        terms: unweighted auxiliary losses (scalars); `Phase.loss_weights` has a weight for each.
        diagnostics: detached values to record, averaged over the steps of a phase.
    """

    tokens_BNC: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    diagnostics: dict[str, Tensor] = field(default_factory=dict)


class Connector(nn.Module):
    """Base class of connectors; sub-modules are named by parameter group, so parameters have the names of a `State`."""

    def forward(self, features_BND: Tensor) -> ConnectorOutput:
        """Map vision features (B, N, D) to image tokens, auxiliary losses and diagnostics."""
        raise NotImplementedError

    def num_activated_parameters(self) -> int:
        """Return the number of parameters that take part in the computation of one token."""
        return sum(parameter.numel() for parameter in self.parameters())


class PlainConnector(Connector):
    """LLaVA's connector: one MLP, group `connector`, initialised as a copy of the backbone's projector."""

    def __init__(self, projector: Projector) -> None:
        super().__init__()
        self.connector: Projector = projector.duplicate()

    def forward(self, features_BND: Tensor) -> ConnectorOutput:
        """Map vision features (B, N, D) to image tokens (B, N, C); no auxiliary loss."""
        return ConnectorOutput(self.connector(features_BND))


def set_trainable(connector: nn.Module, groups: Collection[str]) -> None:
    """Enable gradients for the parameters of `groups`, and for no others."""
    for name, parameter in connector.named_parameters():
        parameter.requires_grad_(name.split(".", 1)[0] in groups)
