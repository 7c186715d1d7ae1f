"""Full. FedAvg of the connector and of the whole LLM, without LoRA: McMahan et al., AISTATS 2017, on every parameter
behind the vision tower.

Server: theta = sum_k (n_k / n) theta_k over the connector and all of the LLM: linear layers, norms, embeddings, head.
A reference beside `central`: what LoRA's few parameters and few bytes cost in quality. Each message is as large as the
LLM in float32.

Deviations: as FedAvg's here (AdamW, every client in every round). The vision tower stays frozen, since its features
are computed once.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import Averaging
from pilot.methods.base import ClientInfo, Phase, PhaseResult, SplitResult, select

GROUPS = frozenset({"language", "connector"})


@dataclass(frozen=True, kw_only=True)
class Full(Averaging):
    """Averaging of the LLM's own parameters and of the connector; LoRA keeps its initial product, zero."""

    name: ClassVar[str] = "full"
    trains_language: ClassVar[bool] = True

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round."""
        return (Phase(name="train", trainable=GROUPS, shared=GROUPS),)

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send LLM and connector; keep nothing, since LoRA is as the run's seed made it."""
        return SplitResult(select(result.end, phase.shared), {})
