"""Phases 2 to 4 of tiny-llava's pre-training: text, connector alignment, connector and LLM together.

Text: next-token prediction on general sentences and on captions without their images. Connector: as in LLaVA's first
stage, only the projector learns, from captions with images. Joint: projector and LLM learn from both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from pilot.io.seeding import seed_for
from pilot.pretraining.architecture import BEGIN, END, PAD
from pilot.pretraining.parts import Parts
from pilot.pretraining.recipe import Recipe
from pilot.pretraining.step import Report, index_batches, optimise

IGNORED = -100
TEXT_INTERVAL = 6
"""In the joint phase every sixth batch is plain text, so that the words of phase 2 are not forgotten."""


@dataclass(frozen=True)
class Corpus:
    """Tokenised captions per scene, general sentences, and the scenes' vision features (M, N, D)."""

    captions: Sequence[Sequence[list[int]]]
    sentences: Sequence[list[int]]
    features_MND: Tensor


def tokenise_captions(tokenizer: PreTrainedTokenizerBase, captions: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Tokenise every caption as it appears in a sequence: line break, text, end token."""
    flat = tokenizer([f"\n{text}" for group in captions for text in group], add_special_tokens=False)["input_ids"]
    ids = iter(flat)
    return [[[*next(ids), END] for _ in group] for group in captions]


def pad(rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Return right-padded ids (B, L), and labels (B, L) that ignore the padding."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), PAD)
    labels = torch.full((len(rows), length), IGNORED)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = labels[index, : len(row)] = torch.tensor(row)
    return ids, labels


def sequence_loss(parts: Parts, ids: Tensor, labels: Tensor, features_BND: Tensor | None) -> Tensor:
    """Return the mean cross-entropy of the labelled tokens of `<s> [image tokens] ids`; image tokens have no label."""
    embed = parts.embedding
    sequence = [embed(torch.full((len(ids), 1), BEGIN))]
    if features_BND is not None:
        sequence.append(parts.connector(features_BND))
    inputs = torch.cat([*sequence, embed(ids)], dim=1)
    hidden = parts.language(inputs_embeds=inputs, use_cache=False).last_hidden_state
    hidden = hidden[:, inputs.shape[1] - ids.shape[1] - 1 : -1]
    kept = labels != IGNORED
    return functional.cross_entropy(parts.head(hidden[kept]), labels[kept])


def train_language(parts: Parts, corpus: Corpus, recipe: Recipe, phase: str, report: Report) -> None:
    """Run the phase named `text`, `connector` or `joint`."""
    parts.tower.requires_grad_(False)
    language, projector = [*parts.language.parameters()], [*parts.connector.parameters()]
    parameters = {"text": language, "connector": projector, "joint": language + projector}[phase]
    settings = {"text": recipe.text, "connector": recipe.connector, "joint": recipe.joint}[phase]
    text_interval = {"text": 1, "connector": 0, "joint": TEXT_INTERVAL}[phase]
    batches = _batches(corpus, settings.batch_size, text_interval, seed_for("language batches", recipe.seed, phase))
    optimise(settings, parameters, batches, lambda batch: {"loss": _loss(parts, batch)}, report)


def _loss(parts: Parts, batch: dict[str, Tensor]) -> Tensor:
    return sequence_loss(parts, batch["ids"], batch["labels"], batch.get("features"))


def _batches(corpus: Corpus, batch_size: int, text_interval: int, seed: int) -> Iterator[dict[str, Tensor]]:
    rng = np.random.default_rng(seed)
    scenes = index_batches(len(corpus.captions), batch_size, seed)
    step = 0
    while True:
        step += 1
        rows = next(scenes)
        chosen = [corpus.captions[int(i)][int(rng.integers(len(corpus.captions[int(i)])))] for i in rows]
        if text_interval and step % text_interval == 0:
            sentences = [corpus.sentences[int(i)] for i in rng.integers(0, len(corpus.sentences), batch_size)]
            ids, labels = pad([*sentences, *chosen[: batch_size // 4]])
            yield {"ids": ids, "labels": labels}
        else:
            ids, labels = pad(chosen)
            yield {"ids": ids, "labels": labels, "features": corpus.features_MND[rows]}
