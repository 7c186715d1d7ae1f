"""What a method trains, holds and sends, counted in LoRAs, connector MLPs and other parts; `pilot.plan.zoo` has all."""

from dataclasses import astuple, dataclass

from pilot.plan.architecture import Architecture

FLOAT32 = 4
"""Bytes of a number in what is trained, sent and stored."""


@dataclass(frozen=True)
class Load:
    """Parameters counted in parts.

    Attributes:
        loras: pairs of A and B in all linear layers of the LLM.
        mlps: connector MLPs.
        router_rows: of width D.
        numbers: other single numbers.
        lora_as, lora_bs: the A or the B of all layers alone.
        offsets: of all linear layers of the LLM, as large as their weights.
    """

    loras: int = 0
    mlps: int = 0
    router_rows: int = 0
    numbers: int = 0
    lora_as: int = 0
    lora_bs: int = 0
    offsets: int = 0

    def parameters(self, architecture: Architecture, rank: int) -> int:
        """How many numbers that is."""
        return (
            self.lora_numbers(architecture, rank)
            + self.mlps * architecture.projector_parameters
            + self.router_rows * architecture.vision_hidden
            + self.numbers
            + self.offsets * architecture.linear_parameters
        )

    def lora_numbers(self, architecture: Architecture, rank: int) -> int:
        """How many numbers belong to LoRA."""
        return (
            self.loras * architecture.lora_parameters(rank)
            + self.lora_as * architecture.lora_a_parameters(rank)
            + self.lora_bs * architecture.lora_b_parameters(rank)
        )

    def __mul__(self, factor: int) -> "Load":
        return Load(*(count * factor for count in astuple(self)))

    def __add__(self, other: "Load") -> "Load":
        return Load(*(own + more for own, more in zip(astuple(self), astuple(other), strict=True)))


NOTHING = Load()
LORA = Load(loras=1)
PLAIN = Load(loras=1, mlps=1)
"""The model of most methods: LoRA and one connector."""


@dataclass(frozen=True, kw_only=True)
class PlannedPhase:
    """One phase of a round on one client.

    Attributes:
        share: of the round's steps.
        trained: what receives gradients.
        frozen: what computes beside it without gradients.
        mixed: experts whose outputs are stacked and weighted; 0 where a connector's output is a plain sum.
        down: what a client receives.
        up: what it sends.
        private: what it keeps on its disk, one version.
        held: copies in float32 that the objective needs beside the model, its differences included.
        folded: sets of the LLM's linear layers beside the frozen ones: with an offset added, or the offsets alone.
        distils: every step computes a teacher's logits, too.
        validates: the client's validation part goes through the trained model.
    """

    name: str = "train"
    share: float = 1.0
    trained: Load = PLAIN
    frozen: Load = NOTHING
    mixed: int = 0
    down: Load = NOTHING
    up: Load = NOTHING
    private: Load = NOTHING
    held: Load = NOTHING
    folded: int = 0
    distils: bool = False
    validates: bool = False


@dataclass(frozen=True, kw_only=True)
class PlannedMethod:
    """A method as the plan sees it.

    Attributes:
        rounds: the phases of each round, the last entry holds for all later ones.
        server: what the server's checkpoint holds.
        leaves: groups that leave a client, as `pilot.methods.base.Phase` names them.
        stays: groups that a client stores for itself.
        one_model: all clients end with the same model.
        pooled: one model on all data.
        upper_bound: what is sent depends on the data or the client; counted is the most that can be.
    """

    rounds: tuple[tuple[PlannedPhase, ...], ...] = ()
    server: Load = NOTHING
    leaves: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()
    one_model: bool = True
    pooled: bool = False
    upper_bound: bool = False

    def phases(self, round_number: int) -> tuple[PlannedPhase, ...]:
        """The phases of a round; rounds count from 1."""
        return self.rounds[min(round_number, len(self.rounds)) - 1] if self.rounds else ()
