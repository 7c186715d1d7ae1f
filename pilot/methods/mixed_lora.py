"""Several LoRAs in every linear layer of the LLM, weighted for each token or for each question.

    y = W x + s sum_j g_j B_j A_j x

LoRA 0 is the client's own, `text_adapter`; the others are frozen, `other_adapter.<j>.<layer>.lora_A` and `.lora_B`, j
from 1. They begin with zeros.

- By token: g_j is the sum of w_c over the choices c that name LoRA j, w = softmax(G x). G is the layer's router,
  `text_router.<layer>.weight` (choices, width), which begins with zeros and is trained if a phase says so.
- By question: the method computes g, which all layers and tokens share, from the question's feature and from frozen
  reference features `question_feature.<name>` (D,).

The feature of a question is the mean of the frozen embeddings of its tokens, between image and answer, of length 1; D
is the LLM's width. After a phase with `questions` a client has the mean feature of the questions that it was trained
on, `question_feature.own`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pilot.methods.state import State

OWN, OTHERS, ROUTER, QUESTION = "text_adapter", "other_adapter", "text_router", "question_feature"
OWN_QUESTIONS = f"{QUESTION}.own"
A = ".lora_A"


@dataclass(frozen=True)
class Mixture:
    """The LoRAs of a layer and how they are weighted.

    Attributes:
        choices: the LoRA that each weight names; 0 is the client's own.
        top: number of a router's largest weights that count for a token, scaled to sum to 1; None for all.
        weigh: returns the weights (B, choices) of B questions from their features (B, D) and the references by name;
            None for routers.
        references: names of the references.
    """

    choices: tuple[int, ...]
    top: int | None = None
    weigh: Callable[[Tensor, Mapping[str, Tensor]], Tensor] | None = None
    references: tuple[str, ...] = ()

    @property
    def others(self) -> range:
        """Return the numbers of the frozen LoRAs."""
        return range(1, max(self.choices) + 1)


def mixed_state(own: Mapping[str, Tensor], mixture: Mixture | None, width: int, questions: bool = False) -> State:
    """Return the initial values of what a phase adds to LoRA's tensors `own`, all zeros.

    Args:
        own: the client's LoRA.
        mixture: of the phase, if any.
        width: that of the LLM.
        questions: whether the phase's result has the feature of its questions.
    """
    asked = [OWN_QUESTIONS] if questions else []
    if mixture is not None and mixture.weigh is not None:
        asked += [f"{QUESTION}.{name}" for name in mixture.references]
    state = {name: next(iter(own.values())).new_zeros(width) for name in asked}
    if mixture is None:
        return state
    for j in mixture.others:
        state |= {name: value.new_zeros(value.shape) for name, value in as_other(own, j).items()}
    if mixture.weigh is not None:
        return state
    for name, value in own.items():
        if name.endswith(A):
            layer = name.removesuffix(A).removeprefix(OWN)
            state[f"{ROUTER}{layer}.weight"] = value.new_zeros(len(mixture.choices), value.shape[1])
    return state


def as_other(own: Mapping[str, Tensor], number: int) -> State:
    """Return a client's LoRA under the names of another one's LoRA `number`."""
    return {f"{OTHERS}.{number}{name.removeprefix(OWN)}": value for name, value in own.items()}
