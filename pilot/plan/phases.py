"""Counts of LoRAs, connector MLPs and other parts that a method trains, keeps and sends; see `pilot.plan.zoo`."""

from dataclasses import astuple, dataclass

from pilot.plan.architecture import Architecture

FLOAT32 = 4
"""Bytes per parameter that is trained, sent or stored."""


@dataclass(frozen=True)
class Load:
    """Numbers of parts that make up a set of parameters.

    Attributes:
        loras: sets of A and B for all linear layers of the LLM.
        mlps: connector MLPs.
        router_rows: router rows of width D.
        numbers: other single numbers.
        lora_as, lora_bs: sets of A alone or B alone for all layers.
        offsets: sets of offsets for all linear layers of the LLM, as large as their weights.
    """

    loras: int = 0
    mlps: int = 0
    router_rows: int = 0
    numbers: int = 0
    lora_as: int = 0
    lora_bs: int = 0
    offsets: int = 0

    def parameters(self, architecture: Architecture, rank: int) -> int:
        """Count all parameters."""
        return (
            self.lora_numbers(architecture, rank)
            + self.mlps * architecture.projector_parameters
            + self.router_rows * architecture.vision_hidden
            + self.numbers
            + self.offsets * architecture.linear_parameters
        )

    def lora_numbers(self, architecture: Architecture, rank: int) -> int:
        """Count LoRA's parameters."""
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
        share: share of the round's steps.
        trained: parameters with gradients.
        frozen: parameters that take part in the computation without gradients.
        mixed: experts whose outputs are stacked and weighted; 0 if a connector's output is a plain sum.
        down: parameters that a client receives.
        up: parameters that it sends.
        private: parameters that it keeps on its disk, one version.
        held: float32 copies that the objective needs in addition to the model, including its differences.
        folded: additional sets of the LLM's linear layers: with an offset added, or the offsets alone.
        distils: whether every step also computes a teacher's logits.
        validates: whether the trained model is run on the client's validation part.
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
    """A method as the plan describes it.

    Attributes:
        rounds: the phases of each round; the last entry applies to all later rounds.
        server: parameters in the server's checkpoint.
        leaves: groups of parameters that leave a client, named as in `pilot.methods.base.Phase`.
        stays: groups of parameters that only the client stores.
        one_model: whether all clients end with the same model.
        pooled: whether one model is trained on all data.
        upper_bound: whether the amount sent depends on the data or the client, so that the maximum is counted.
    """

    rounds: tuple[tuple[PlannedPhase, ...], ...] = ()
    server: Load = NOTHING
    leaves: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()
    one_model: bool = True
    pooled: bool = False
    upper_bound: bool = False

    def phases(self, round_number: int) -> tuple[PlannedPhase, ...]:
        """Return the phases of a round; rounds count from 1."""
        return self.rounds[min(round_number, len(self.rounds)) - 1] if self.rounds else ()
