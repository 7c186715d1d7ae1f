"""Phase 7 of tiny-llava's pre-training: facts, focused captions and plain text in turn.

Words that occur only in plain text lose their output rows while only captions are trained (embeddings are tied): after
phase 6 the federated tasks started at a cross-entropy of 4 to 6, and the model could not write the required answers. So
every fourth batch is text again, now including lists of decimals in brackets, of any length but four. The other batches
are captions: one third are those of phase 6, two thirds are facts (fact_captions.py), of which only the endings are
learned. In addition, the LLM learns to look up every named item in the image (lookup.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from pilot.io.seeding import generator, seed_for
from pilot.pretraining.corpus import PublicScene
from pilot.pretraining.fact_captions import Fact, fact_caption
from pilot.pretraining.general_text import general_sentence
from pilot.pretraining.language import IGNORED, Corpus, pad, sequence_loss
from pilot.pretraining.lookup import HEAD_WIDTH, LookupTargets, lookup_loss, lookup_targets
from pilot.pretraining.parts import Parts
from pilot.pretraining.recipe import Recipe
from pilot.pretraining.step import Report, index_batches, optimise

LIST_LENGTHS = (2, 3, 5, 6)
LIST_SHARE = 0.2
CAPTIONS_PER_TEXT = 3
"""Caption batches before each batch of plain text."""
FACT_SHARE = 2 / 3
"""Share of facts among the captions."""
LOOKUP_WEIGHT = 0.5
VISITS = {"object": 2, "sign": 3, "shape": 1}
"""Visits to a scene of each kind per epoch: signs are hard to read, shapes are already learned."""

Labelled = tuple[list[int], list[int]]
"""Ids, and for each id 1 if it is learned, else 0."""


@dataclass(frozen=True)
class FactCorpus:
    """Tokenised facts per scene, the scenes' rows once per visit in an epoch, and the lookup targets of the scenes."""

    captions: Sequence[Sequence[Labelled]]
    visits: Tensor
    lookup: LookupTargets


def plain_text(recipe: Recipe) -> list[str]:
    """Generate general sentences, and lists of decimals in brackets."""
    rng = generator("consolidation text", recipe.seed)
    count = recipe.num_text_sentences
    return [_decimals(rng) if rng.random() < LIST_SHARE else general_sentence(rng) for _ in range(count)]


def fact_corpus(tokenizer: PreTrainedTokenizerBase, scenes: Sequence[PublicScene], recipe: Recipe) -> FactCorpus:
    """Generate `recipe.facts_per_scene` captions of facts about each scene."""
    captions, visits = [], []
    for row, public in enumerate(scenes):
        facts = [fact_caption(public) for _ in range(recipe.facts_per_scene)]
        captions.append([_tokenise(tokenizer, caption) for caption in facts])
        visits += [row] * VISITS[public.kind]
    return FactCorpus(captions, torch.tensor(visits), lookup_targets(tokenizer, [public.scene for public in scenes]))


def consolidate(parts: Parts, focused: Corpus, facts: FactCorpus, recipe: Recipe, report: Report) -> None:
    """Train projector and LLM on captions with images and on `focused.sentences` without, in turn."""
    parts.tower.requires_grad_(False)
    torch.manual_seed(seed_for("lookup head", recipe.seed))
    head = nn.Linear(recipe.text_width, HEAD_WIDTH)
    middle_layer: nn.Module = parts.language.get_submodule(f"layers.{recipe.text_layers // 2 - 1}")
    outputs: list[Tensor] = []
    hook = middle_layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))

    def loss_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = batch.get("rows")
        features = None if rows is None else focused.features_MND[rows]
        text = sequence_loss(parts, batch["ids"], batch["labels"], features)
        hidden = outputs.pop()[:, -batch["ids"].shape[1] :]
        if rows is None:
            return {"loss": text}
        lookup = lookup_loss(head, hidden, batch["ids"], facts.lookup, rows)
        return {"loss": text + LOOKUP_WEIGHT * lookup, "captions": text, "lookup": lookup}

    parameters = [*parts.language.parameters(), *parts.connector.parameters(), *head.parameters()]
    with _fast_matmul(parts.model):
        optimise(recipe.consolidate, parameters, _batches(focused, facts, recipe), loss_of, report)
    hook.remove()


@contextmanager
def _fast_matmul(model: Any) -> Iterator[None]:
    """Use oneDNN's products and plain attention: a step takes two thirds of the time (docs/notes/training-step.md)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    model.set_attn_implementation("eager")
    yield
    torch.set_float32_matmul_precision(before)
    model.set_attn_implementation("sdpa")


def _batches(focused: Corpus, facts: FactCorpus, recipe: Recipe) -> Iterator[dict[str, Tensor]]:
    seed, size = seed_for("consolidate", recipe.seed), recipe.consolidate.batch_size
    rng = np.random.default_rng(seed)
    for number, visits in enumerate(index_batches(len(facts.visits), size, seed), start=1):
        rows = facts.visits[visits]
        ids, labels = _pad_labelled([_draw_caption(focused, facts, int(row), rng) for row in rows])
        yield {"ids": ids, "labels": labels, "rows": rows}
        if number % CAPTIONS_PER_TEXT == 0:
            sentences = rng.integers(0, len(focused.sentences), size)
            ids, labels = pad([focused.sentences[int(i)] for i in sentences])
            yield {"ids": ids, "labels": labels}


def _draw_caption(focused: Corpus, facts: FactCorpus, row: int, rng: np.random.Generator) -> Labelled:
    if rng.random() < FACT_SHARE:
        return facts.captions[row][int(rng.integers(len(facts.captions[row])))]
    ids = focused.captions[row][int(rng.integers(len(focused.captions[row])))]
    return ids, [1] * len(ids)


def _pad_labelled(rows: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
    ids, labels = pad([ids for ids, _ in rows])
    for row, (_, learned) in enumerate(rows):
        labels[row, : len(learned)][torch.tensor(learned) == 0] = IGNORED
    return ids, labels


def _tokenise(tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact]) -> Labelled:
    """Tokenise a line break, then lead and ending of every fact; only endings are learned."""
    parts = [part for lead, ending in facts for part in (f" {lead}", f" {ending}")]
    parts[0] = f"\n{parts[0].strip()}"
    ids, learned = [], []
    for index, tokens in enumerate(tokenizer(parts, add_special_tokens=False)["input_ids"]):
        ids += tokens
        learned += [index % 2] * len(tokens)
    return ids, learned


def _decimals(rng: np.random.Generator) -> str:
    values = ", ".join(f"0.{int(value):02d}" for value in rng.integers(0, 100, int(rng.choice(LIST_LENGTHS))))
    return f"Numbers [{values}]"
