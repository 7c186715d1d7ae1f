"""The plan of a method: sizes of what each phase trains, keeps and sends, in numbers of the full-size model."""

from dataclasses import dataclass

FLOAT32 = 4
"""Bytes per parameter that is trained, sent or stored."""


@dataclass(frozen=True, kw_only=True)
class PlannedPhase:
    """One phase of a round on one client; the maximum over clients where they differ.

    Attributes:
        share: share of the round's steps.
        trained: parameters with gradients.
        trained_lora: those of them that belong to LoRA, or weigh several.
        mixed_lora: parameters of LoRAs beside the client's own, and of what weighs them.
        trained_language: those that are the LLM's own.
        trained_mlps: connector MLPs with gradients.
        frozen: parameters that take part in the computation without gradients, except offsets.
        frozen_mlps: connector MLPs among them.
        num_experts: experts whose outputs are weighted by a router; 0 if a connector's output is a plain sum.
        down: parameters that a client receives.
        up: parameters and statistics that it sends.
        private: parameters that it keeps on its disk, one version.
        extra_copies: float32 copies that the objective needs in addition to the model, including its differences.
        extra_linear_sets: additional sets of the LLM's linear layers: with an offset added, or the offsets alone.
        distils: whether every step also computes a teacher's logits.
        validates: whether the trained model is run on the client's validation part.
    """

    name: str
    share: float = 1.0
    trained: int
    trained_lora: int
    mixed_lora: int = 0
    trained_language: int = 0
    trained_mlps: int
    frozen: int = 0
    frozen_mlps: int = 0
    num_experts: int = 0
    down: int = 0
    up: int = 0
    private: int = 0
    extra_copies: int = 0
    extra_linear_sets: int = 0
    distils: bool = False
    validates: bool = False


@dataclass(frozen=True, kw_only=True)
class PlannedMethod:
    """A method as the plan describes it.

    Attributes:
        rounds: the phases of each round; the last entry applies to all later rounds.
        servers: numbers in the server's checkpoint after each of these rounds.
        leaves: groups of parameters that leave a client, named as in `pilot.methods.base.Phase`.
        stays: groups of parameters that only the client stores.
        pooled: whether one model is trained on all data.
        upper_bound: whether amounts differ between clients or depend on what was trained: the largest are counted.
    """

    rounds: tuple[tuple[PlannedPhase, ...], ...]
    servers: tuple[int, ...]
    leaves: tuple[str, ...]
    stays: tuple[str, ...]
    pooled: bool
    upper_bound: bool

    @property
    def server(self) -> int:
        """Return the numbers in the server's checkpoint after the last round."""
        return self.servers[-1]

    def server_after(self, round_number: int) -> int:
        """Return the numbers in the server's checkpoint after a round; rounds count from 1."""
        return self.servers[min(round_number, len(self.servers)) - 1]

    def phases(self, round_number: int) -> tuple[PlannedPhase, ...]:
        """Return the phases of a round; rounds count from 1."""
        return self.rounds[min(round_number, len(self.rounds)) - 1]
