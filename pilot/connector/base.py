"""What sits between frozen vision features and the LLM."""

from collections.abc import Collection
from dataclasses import dataclass, field

from torch import Tensor, nn

from pilot.connector.mlp import Mlp, Projector


@dataclass(frozen=True)
class ConnectorOutput:
    """Image tokens and what a connector has to say about them.

    Attributes:
        tokens_BNC: image tokens (B, N, C) for the LLM.
        terms: unweighted auxiliary losses (scalars); `Phase.loss_weights` has a weight for each.
        diagnostics: detached values worth recording, averaged over the steps of a phase.
    """

    tokens_BNC: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    diagnostics: dict[str, Tensor] = field(default_factory=dict)


class Connector(nn.Module):
    """Base class. Its direct sub-modules are named by parameter group, so parameters have a State's names."""

    def forward(self, features_BND: Tensor) -> ConnectorOutput:
        """Vision features (B, N, D) to image tokens, auxiliary losses and diagnostics."""
        raise NotImplementedError

    def num_activated_parameters(self) -> int:
        """Parameters that take part in the computation of one token."""
        return sum(parameter.numel() for parameter in self.parameters())


class PlainConnector(Connector):
    """LLaVA's own connector: one MLP, group `connector`, started as a copy of the backbone's projector."""

    def __init__(self, projector: Projector) -> None:
        super().__init__()
        self.connector: Mlp = projector.duplicate()

    def forward(self, features_BND: Tensor) -> ConnectorOutput:
        """Vision features (B, N, D) to image tokens (B, N, C); no auxiliary loss."""
        return ConnectorOutput(self.connector(features_BND))


def set_trainable(connector: nn.Module, groups: Collection[str]) -> None:
    """Let exactly the parameters of `groups` receive gradients."""
    for name, parameter in connector.named_parameters():
        parameter.requires_grad_(name.split(".", 1)[0] in groups)
