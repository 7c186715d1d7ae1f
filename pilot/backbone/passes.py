"""Forward, backward and generation of the LLM behind one interface: with transformers' module, or packed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pilot.backbone.generation import greedy, group_by_length
from pilot.backbone.lora import merged_lora
from pilot.backbone.numerics import Numerics
from pilot.backbone.packed.packing import IGNORED

ImageTokens = Callable[[list[int]], Tensor]
"""Maps rows of a list of prompts to their image tokens (rows, N, C)."""


@dataclass(frozen=True)
class LanguageModel:
    """The LLM and what sequences begin and end with.

    Attributes:
        layers: transformers' module, its linear layers replaced by those with LoRA.
        head: maps hidden states (M, C) to logits (M, V).
        embed: maps ids to (..., C).
        prefix: ids before the image.
        eos_id: id that ends an answer.
        numerics: device, types and sizes of batches.
        positions: position ids (A, L) of sequences; None for 0, 1, 2, ...
    """

    layers: nn.Module
    head: nn.Module
    embed: nn.Module
    prefix: Tensor
    eos_id: int
    numerics: Numerics
    positions: Callable[[int], Tensor] | None = None

    def places(self, start: int, stop: int, count: int) -> Tensor | None:
        """Return the position ids (A, B, L) of `count` sequences' tokens from `start` to `stop`; None for the usual."""
        if self.positions is None:
            return None
        return self.positions(stop)[:, None, start:].expand(-1, count, -1).to(self.numerics.device)

    def inputs(self, image_tokens_BNC: Tensor, ids_BL: Tensor) -> Tensor:
        """Return the embedded sequences (B, prefix + N + L, C)."""
        prefix_BLC = self.embed(self.prefix).expand(len(ids_BL), -1, -1)
        return torch.cat([prefix_BLC, image_tokens_BNC.to(prefix_BLC.dtype), self.embed(ids_BL)], dim=1)


class Passes(Protocol):
    """Ways to compute with a `LanguageModel`; all give the same values up to rounding."""

    def logits(self, image_tokens_BNC: Tensor, ids_BL: Tensor, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (M, V) of the labelled tokens, and the tokens (M,); rows whose token is `IGNORED` may follow.

        All padding follows the last label, so causal attention needs no mask.
        """

    def answer(self, image_tokens: ImageTokens, ids: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Continue prefix, image and prompt ids with the most likely tokens; the end token is not returned."""

    def refresh(self) -> None:
        """Read the frozen weights again; they have changed."""


class ModulePasses:
    """Passes of transformers' module.

    Args:
        model: the LLM.
        weigh: called before sequences are computed, with the ids between image and answer of each.
    """

    def __init__(self, model: LanguageModel, weigh: Callable[[Sequence[Sequence[int]]], None] | None = None) -> None:
        self._model, self._weigh = model, weigh

    def logits(self, image_tokens_BNC: Tensor, ids_BL: Tensor, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Run the module over padded rows."""
        model = self._model
        model.layers.train(model.numerics.gradient_checkpointing and torch.is_grad_enabled())
        if self._weigh is not None:
            self._weigh(questions_of(ids_BL, labels_BL))
        inputs = model.inputs(image_tokens_BNC, ids_BL)
        places = model.places(0, inputs.shape[1], len(inputs))
        hidden = model.layers(inputs_embeds=inputs, position_ids=places, use_cache=False).last_hidden_state
        hidden, kept = hidden[:, inputs.shape[1] - ids_BL.shape[1] - 1 : -1], labels_BL != IGNORED
        return model.head(hidden[kept]).float(), labels_BL[kept]

    def answer(self, image_tokens: ImageTokens, ids: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Generate with a key-value cache, in batches of equal length."""
        model = self._model
        answers: list[list[int]] = [[] for _ in ids]
        model.layers.eval()
        with model.numerics.autocast(), merged_lora(model.layers):
            for rows in group_by_length([len(row) for row in ids], model.numerics.generation_batch):
                after = torch.tensor([ids[row] for row in rows], device=model.numerics.device)
                if self._weigh is not None:
                    self._weigh([ids[row] for row in rows])
                inputs = model.inputs(image_tokens(rows), after)
                tokens = greedy(
                    model.layers, model.head, model.embed, inputs, max_new_tokens=max_new_tokens, end=model.eos_id,
                    places=model.places,
                )  # fmt: skip
                for row, answer in zip(rows, tokens, strict=True):
                    answers[row] = answer
        return answers

    def refresh(self) -> None:
        """Do nothing: the module computes with the weights themselves."""


def questions_of(ids_BL: Tensor, labels_BL: Tensor) -> list[list[int]]:
    """Return the ids before the first labelled one of each row; none where nothing is labelled."""
    firsts = (labels_BL != IGNORED).int().argmax(dim=1).tolist()
    rows: list[list[int]] = ids_BL.tolist()
    return [row[:first] for row, first in zip(rows, firsts, strict=True)]
