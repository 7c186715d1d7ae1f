"""The packed passes as one of the backbone's `Passes`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pilot.backbone.packed.generation import packed_greedy
from pilot.backbone.packed.llama import PackedLlama
from pilot.backbone.packed.packing import pack
from pilot.backbone.passes import ImageTokens, LanguageModel


class PackedPasses:
    """Passes without padding, on plain tensors, for float32 on a CPU."""

    def __init__(self, model: LanguageModel) -> None:
        self._model, self._llama = model, PackedLlama(model.layers)

    def logits(self, image_tokens_BNC: Tensor, ids_BL: Tensor, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Run the layers over packed rows, the last one at the tokens before labels only."""
        model = self._model
        packing = pack(ids_BL, labels_BL, len(model.prefix), image_tokens_BNC.shape[1])
        parts = [model.embed(model.prefix), image_tokens_BNC.flatten(0, 1), model.embed(packing.text_T)]
        hidden = self._llama.prediction_states(torch.cat(parts), packing)
        return model.head(hidden), packing.targets_M

    def answer(self, image_tokens: ImageTokens, ids: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Generate in a fixed number of slots."""
        model = self._model
        return packed_greedy(
            self._llama, model.head, model.embed, model.prefix, image_tokens, ids,
            max_new_tokens=max_new_tokens, end=model.eos_id, num_slots=2 * model.numerics.generation_batch,
        )  # fmt: skip

    def refresh(self) -> None:
        """Stack the frozen weights again."""
        self._llama.weights.refresh()
