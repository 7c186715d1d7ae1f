"""An auxiliary task of phase 7: look up every word for an item in the image as soon as it is read.

A text that names a dog early and describes it much later is understood in two steps: find the dog where it is named,
and carry the result to the end. Endings alone teach the first step slowly. So a linear head (discarded afterwards)
predicts from the hidden state of every word for an item, halfway through the LLM, how often the item is in the image
and, if once, where its edges are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from pilot.data.scenes import sprites
from pilot.data.scenes.scene import Item, Scene
from pilot.pretraining.alignment import NUM_BINS
from pilot.pretraining.captions import percent, plural

WORDS = (*sprites.OBJECTS, *sprites.FAMILIES, *sprites.SHAPES)
NO_WORD = -1
MAX_COUNT = 4
"""Maximum number of items of one name or family in a scene."""
HEAD_WIDTH = MAX_COUNT + 1 + 4 * NUM_BINS
"""Outputs of the head: the count (0 to MAX_COUNT), then a bin for each of the four edges."""


@dataclass(frozen=True)
class LookupTargets:
    """Word of each token, or -1 (V,); per scene and word the count (M, W), and the edges of its last item (M, W, 4)."""

    word_of_token: Tensor
    counts: Tensor
    edges: Tensor


def lookup_targets(tokenizer: PreTrainedTokenizerBase, scenes: Sequence[Scene]) -> LookupTargets:
    """Compute the targets of `lookup_loss` for `scenes`."""
    counts, edges = zip(*(_count_words(scene) for scene in scenes), strict=True)
    return LookupTargets(_words_of_tokens(tokenizer), torch.stack(counts), torch.stack(edges))


def _words_of_tokens(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return for each id of the vocabulary which of WORDS it is, in the singular or the plural; else -1."""
    words = torch.full((len(tokenizer),), NO_WORD)
    for index, word in enumerate(WORDS):
        for text in (word, plural(word)):
            ids = tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
            if len(ids) == 1:
                words[ids] = index
    return words


def _count_words(scene: Scene) -> tuple[Tensor, Tensor]:
    """Count each of WORDS in the scene (W,); also return the edges of its last item in whole percent (W, 4)."""
    counts, edges = torch.zeros(len(WORDS), dtype=torch.int8), torch.zeros(len(WORDS), 4, dtype=torch.int8)
    for item in scene.items:
        for word in _words_for(item):
            counts[WORDS.index(word)] += 1
            edges[WORDS.index(word)] = torch.tensor([percent(edge) for edge in item.box])
    return counts, edges


def lookup_loss(head: nn.Module, hidden_BLC: Tensor, ids_BL: Tensor, targets: LookupTargets, rows: Tensor) -> Tensor:
    """Return the cross-entropy of the counts at all words for items, plus that of the edges where the count is one."""
    words_BL = targets.word_of_token[ids_BL]
    named = words_BL != NO_WORD
    scene = rows.unsqueeze(1).expand_as(words_BL)[named]
    counts, edges = targets.counts[scene, words_BL[named]].long(), targets.edges[scene, words_BL[named]].long()
    how_often, bins = head(hidden_BLC[named]).split([MAX_COUNT + 1, 4 * NUM_BINS], dim=-1)
    once = counts == 1
    loss = functional.cross_entropy(how_often, counts)
    if not bool(once.any()):
        return loss
    places = bins[once].unflatten(-1, (4, NUM_BINS)).flatten(0, 1)
    return loss + functional.cross_entropy(places, edges[once].flatten())


def _words_for(item: Item) -> Sequence[str]:
    if item.kind == "object":
        return item.name, item.family
    return (item.name,) if item.kind == "shape" else ()
