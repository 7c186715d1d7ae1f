"""Phase 7 of tiny-llava's pre-training: focused captions, facts, and plain text.

Words that only plain text has lose their output rows while captions alone are trained (embeddings are tied): after
phase 6 the federated tasks started at a cross-entropy of 4 to 6 and could not write what they had to. Every third
batch is text again, now also with lists of decimals in brackets, of any length but four. The captions are those of
phase 6 and, twice as often, facts (fact_captions.py), which phase 6 left half learned.
"""

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from pilot.backbone.general_text import general_sentence
from pilot.backbone.language_pretraining import Corpus, pad, sequence_loss
from pilot.backbone.pretraining import Report, index_batches, optimise
from pilot.backbone.recipe import Recipe
from pilot.io.seeding import generator, seed_for

LIST_LENGTHS = (2, 3, 5, 6)
LIST_SHARE = 0.2
CAPTIONS_PER_TEXT = 2
"""Batches of captions before each batch of plain text."""


def plain_text(recipe: Recipe) -> list[str]:
    """General sentences, and lists of decimals in brackets."""
    rng = generator("consolidation text", recipe.seed)
    count = recipe.num_text_sentences
    return [_decimals(rng) if rng.random() < LIST_SHARE else general_sentence(rng) for _ in range(count)]


def consolidate(model: LlavaForConditionalGeneration, corpus: Corpus, recipe: Recipe, report: Report) -> None:
    """Projector and LLM on `corpus`: captions with images, and sentences without, in turn."""
    model.model.vision_tower.requires_grad_(False)
    parameters = [*model.model.language_model.parameters(), *model.model.multi_modal_projector.parameters()]

    def loss_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": sequence_loss(model, batch["ids"], batch["labels"], batch.get("features"))}

    optimise(recipe.consolidate, parameters, _batches(corpus, recipe), loss_of, report)


def _batches(corpus: Corpus, recipe: Recipe) -> Iterator[dict[str, Tensor]]:
    seed, size = seed_for("consolidate", recipe.seed), recipe.consolidate.batch_size
    rng = np.random.default_rng(seed)
    for number, rows in enumerate(index_batches(len(corpus.captions), size, seed), start=1):
        chosen = [corpus.captions[int(i)][int(rng.integers(len(corpus.captions[int(i)])))] for i in rows]
        ids, labels = pad(chosen)
        yield {"ids": ids, "labels": labels, "features": corpus.features_MND[rows]}
        if number % CAPTIONS_PER_TEXT == 0:
            ids, labels = pad([corpus.sentences[int(i)] for i in rng.integers(0, len(corpus.sentences), size)])
            yield {"ids": ids, "labels": labels}


def _decimals(rng: np.random.Generator) -> str:
    values = ", ".join(f"0.{int(value):02d}" for value in rng.integers(0, 100, int(rng.choice(LIST_LENGTHS))))
    return f"Numbers [{values}]"
