"""Phases 5 and 6 of tiny-llava's pre-training: alignment of image tokens with words, then captions of single items.

After captioning alone, a model of this size describes one object of a scene well and then repeats it: it has not
learned to look for the object that it describes. So the projector first learns, on the dense labels of phase 1, to give
every patch the embedding of the word for the item that covers it, and to keep the item's edges readable by a linear
head (discarded afterwards). Looking for "dog" is then a match of equal directions, which attention learns quickly from
captions that start with one object and its extent. The alignment stays in the loss while connector and LLM learn from
these captions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from pilot.data.scenes.scene import SIZE
from pilot.io.seeding import seed_for
from pilot.pretraining.corpus import CLASSES
from pilot.pretraining.language import Corpus, pad, sequence_loss
from pilot.pretraining.parts import Parts
from pilot.pretraining.recipe import Recipe
from pilot.pretraining.step import Report, index_batches, optimise
from pilot.pretraining.vision import ScenePool

SHARPNESS = 12.0
"""Scale of the cosine between a token and a word's embedding."""
ALIGNMENT_WEIGHT = 0.3
NUM_BINS = 100


@dataclass(frozen=True)
class DenseTargets:
    """Targets per scene and patch: index into `words` (M, N), edges in whole percent (M, N, 4), and `filled` (M, N)."""

    words: Tensor
    word_of_patch: Tensor
    edges: Tensor
    filled: Tensor


def dense_targets(pool: ScenePool, tokenizer: PreTrainedTokenizerBase, patch: int) -> DenseTargets:
    """Convert the pool's dense labels to words and numbers; a coloured shape counts as its shape."""
    names = [name.split(" ")[-1] for name in CLASSES]
    texts = [name if name.isupper() or name.isdigit() else f" {name}" for name in names]
    ids = [row[0] for row in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    words, word_of_class = torch.unique(torch.tensor(ids), return_inverse=True)
    side = SIZE // patch
    centres = (torch.arange(side) * patch + patch / 2) / SIZE
    across, down = centres.repeat(side), centres.repeat_interleave(side)
    base = torch.stack([across, down, across, down], dim=1)
    edges = ((pool.edges + base) * 100).round().clamp(0, NUM_BINS - 1).long()
    return DenseTargets(words, word_of_class[pool.classes], edges, pool.classes > 0)


def alignment_loss(
    tokens_BNC: Tensor, embedding: Tensor, edge_head: nn.Module, targets: DenseTargets, rows: Tensor
) -> Tensor:
    """Return the cross-entropy of the patches' words under cosine logits, plus that of their edges by `edge_head`."""
    directions = functional.normalize(embedding.detach()[targets.words], dim=-1)
    logits = SHARPNESS * functional.normalize(tokens_BNC, dim=-1) @ directions.T
    words = functional.cross_entropy(logits.flatten(0, 1), targets.word_of_patch[rows].flatten())
    filled = targets.filled[rows]
    edges = edge_head(tokens_BNC[filled]).unflatten(-1, (4, NUM_BINS))
    return words + functional.cross_entropy(edges.flatten(0, 1), targets.edges[rows][filled].flatten())


class Aligner:
    """Training of phases 5 and 6 over one pool, with one edge head for both."""

    def __init__(self, parts: Parts, targets: DenseTargets, recipe: Recipe) -> None:
        torch.manual_seed(seed_for("edge head", recipe.seed))
        self.edge_head = nn.Linear(recipe.text_width, 4 * NUM_BINS)
        self.parts, self.targets, self.recipe = parts, targets, recipe

    def align(self, features_MND: Tensor, report: Report) -> None:
        """Run phase 5: train projector and edge head on the dense labels."""
        settings = self.recipe.align
        indices = index_batches(len(features_MND), settings.batch_size, seed_for("align", self.recipe.seed))
        projector = self.parts.connector

        def loss_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"loss": self._loss(projector(features_MND[batch["rows"]]), batch["rows"])}

        parameters = [*projector.parameters(), *self.edge_head.parameters()]
        optimise(settings, parameters, ({"rows": rows} for rows in indices), loss_of, report)

    def refine(self, corpus: Corpus, report: Report) -> None:
        """Run phase 6: train projector and LLM on `corpus` (focused captions), with the alignment loss."""
        self.parts.tower.requires_grad_(False)
        projector = self.parts.connector

        def loss_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            features = corpus.features_MND[batch["rows"]]
            captions = sequence_loss(self.parts, batch["ids"], batch["labels"], features)
            aligned = self._loss(projector(features), batch["rows"])
            return {"loss": captions + ALIGNMENT_WEIGHT * aligned, "captions": captions, "alignment": aligned}

        language = [*self.parts.language.parameters()]
        parameters = [*language, *projector.parameters(), *self.edge_head.parameters()]
        optimise(self.recipe.refine, parameters, self._batches(corpus), loss_of, report)

    def _batches(self, corpus: Corpus) -> Iterator[dict[str, Tensor]]:
        seed = seed_for("refine", self.recipe.seed)
        rng = np.random.default_rng(seed)
        for rows in index_batches(len(corpus.captions), self.recipe.refine.batch_size, seed):
            chosen = [corpus.captions[int(i)][int(rng.integers(len(corpus.captions[int(i)])))] for i in rows]
            ids, labels = pad(chosen)
            yield {"ids": ids, "labels": labels, "rows": rows}

    def _loss(self, tokens_BNC: Tensor, rows: Tensor) -> Tensor:
        embedding = self.parts.embedding.weight
        assert isinstance(embedding, Tensor), "an embedding's weight is a tensor"
        return alignment_loss(tokens_BNC, embedding, self.edge_head, self.targets, rows)
