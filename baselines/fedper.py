"""FedPer. Arivazhagan et al., "Federated Learning with Personalization Layers", 2019, arXiv 1912.00818.

Server: theta = sum_k (n_k / n) theta_k over LoRA. The connector is trained by every client and never leaves it.

Deviations: the paper's personal layers are the last ones of a classifier; here they are the connector between image
features and LLM, the one part that is small and separate. Clients train both parts at once with AdamW, where the paper
uses SGD; a client that never took part keeps the backbone's projector.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import PLAIN_GROUPS, Averaging
from pilot.methods.base import Phase


@dataclass(frozen=True, kw_only=True)
class FedPer(Averaging):
    """Averaging of LoRA, with a private connector per client."""

    name: ClassVar[str] = "fedper"
    single_model: ClassVar[bool] = False

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round, after which LoRA leaves."""
        return (Phase(name="train", trainable=PLAIN_GROUPS, shared=frozenset({"text_adapter"})),)
