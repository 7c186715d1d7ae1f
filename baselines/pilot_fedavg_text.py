"""Pilot with a text adapter averaged over all clients: a step between FedAvg and Pilot.

Xiong et al., AAAI 2025, arXiv 2501.13985, without adaptive text aggregation:

    Theta = sum_k (n_k / n) Theta_k   for LoRA, on every client,

and everything else as in Pilot (described with its deviations in pilot/methods/pilot.py): two stages, task-aware visual
aggregation, CT-MoA. `num_neighbors`, `self_weight` and `distance` have no effect.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.pilot import Pilot


@dataclass(frozen=True, kw_only=True)
class PilotFedAvgText(Pilot):
    """Pilot with the option `adaptive_text_aggregation` off."""

    name: ClassVar[str] = "pilot_fedavg_text"

    adaptive_text_aggregation: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adaptive_text_aggregation:
            raise ValueError("adaptive_text_aggregation: expected false; with it, the method is pilot")
