"""Several LoRAs in every linear layer of the LLM, weighted for each token by a router of the layer.

    y = W x + s sum_j g_j B_j A_j x,    g_j = the sum of w_c over the choices c that name LoRA j,    w = softmax(G x)

LoRA 0 is the client's own, `text_adapter`; the others are frozen, `other_adapter.<j>.<layer>.lora_A` and `.lora_B`, j
from 1. G is `text_router.<layer>.weight` (choices, width), trained if a phase says so. Others and G begin with zeros.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pilot.methods.state import State

OWN, OTHERS, ROUTER = "text_adapter", "other_adapter", "text_router"
A = ".lora_A"


@dataclass(frozen=True)
class Mixture:
    """The LoRAs of a layer and how they are weighted.

    Attributes:
        choices: the LoRA that each output of the router names; 0 is the client's own.
        top: number of largest weights that count for a token, scaled to sum to 1; None for all.
    """

    choices: tuple[int, ...]
    top: int | None = None

    @property
    def others(self) -> range:
        """Return the numbers of the frozen LoRAs."""
        return range(1, max(self.choices) + 1)


def mixed_state(own: Mapping[str, Tensor], mixture: Mixture | None) -> State:
    """Return the initial values of what a mixture adds to LoRA's tensors `own`: zeros; empty without a mixture."""
    if mixture is None:
        return {}
    state = {f"{OTHERS}.{j}{name.removeprefix(OWN)}": value.new_zeros(value.shape)
             for j in mixture.others for name, value in own.items()}  # fmt: skip
    for name, value in own.items():
        if name.endswith(A):
            layer = name.removesuffix(A).removeprefix(OWN)
            state[f"{ROUTER}{layer}.weight"] = value.new_zeros(len(mixture.choices), value.shape[1])
    return state


def as_other(own: Mapping[str, Tensor], number: int) -> State:
    """Return a client's LoRA under the names of another one's LoRA `number`."""
    return {f"{OTHERS}.{number}{name.removeprefix(OWN)}": value for name, value in own.items()}
