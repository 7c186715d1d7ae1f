"""LoRA of which a part is shared: pLoRA of Mitra et al., "FedVLM: Scalable Personalized Vision-Language Models through
Federated Learning", ECAI 2025, arXiv 2507.17088 (B shared, A private), and other choices of factors or projections.

All of LoRA is trained; the parts named by `shared` leave the client and are averaged, the others stay:

    theta_shared = sum_k (n_k / n) theta_k,   client k's model is theta_shared with its own theta_private.

`shared: [B]` is pLoRA, `[A]` is FedSA-LoRA, `[q_proj, k_proj]` shares both factors of two projections of attention, as
PFAdapter (arXiv 2607.12111) is said to do.

Deviations: of both papers only abstract and captions could be read. The connector, which they do not mention, is
averaged. All clients start from the seed's A, since the mean of B has no meaning over unrelated A. A client that has
not trained yet is evaluated with its private part before training. AdamW, like every method here.
"""

from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import PLAIN_GROUPS, Averaging
from pilot.methods.base import Phase
from pilot.methods.lora_products import TARGETS

FACTORS = ("A", "B")


@dataclass(frozen=True, kw_only=True)
class SharedSubset(Averaging):
    """Averaging of a part of LoRA and of the connector; the default `split_result` keeps the rest on the client.

    Attributes:
        shared: factors (`A`, `B`; none for both) of projections (by name, such as `q_proj`; none for all).
    """

    name: ClassVar[str] = "shared_subset"
    single_model: ClassVar[bool] = False

    shared: tuple[str, ...] = ("B",)

    def __post_init__(self) -> None:
        unknown = [part for part in self.shared if part not in (*FACTORS, *TARGETS)]
        if unknown or not self.shared:
            raise ValueError(
                f"shared: expected one or more of {', '.join((*FACTORS, *TARGETS))}, got {unknown or self.shared}"
            )

    @property
    def parts(self) -> frozenset[str]:
        """Return the selectors of the shared tensors."""
        factors = [f"lora_{part}" for part in FACTORS if part in self.shared] or ["lora_A", "lora_B"]
        projections = [f"{part}." for part in self.shared if part not in FACTORS] or [""]
        return frozenset(f"text_adapter:{projection}{factor}" for projection in projections for factor in factors)

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round, after which the shared parts leave."""
        return (Phase(name="train", trainable=PLAIN_GROUPS, shared=self.parts | {"connector"}),)
