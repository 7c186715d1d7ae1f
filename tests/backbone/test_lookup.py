"""The auxiliary task of pre-training: which words are looked up, what they should find, and its loss by hand."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pilot.backbone.sources import TINY_LLAVA
from pilot.data.scenes.scene import Item, Scene
from pilot.pretraining.alignment import NUM_BINS
from pilot.pretraining.lookup import HEAD_WIDTH, MAX_COUNT, WORDS, LookupTargets, lookup_loss, lookup_targets

DOG, CAT, SHAPE = (
    Item("object", "dog", (8, 16, 24, 40)),
    Item("object", "cat", (40, 40, 60, 79)),
    Item("shape", "circle", (0, 0, 20, 20), "red"),
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """The shipped one."""
    return AutoTokenizer.from_pretrained(TINY_LLAVA, local_files_only=True)


def scene(*items: Item) -> Scene:
    """A scene of which only the ground truth matters."""
    return Scene(Image.new("RGB", (1, 1)), "blue", items)


def test_every_word_is_looked_up_in_singular_and_plural(tokenizer: PreTrainedTokenizerBase) -> None:
    found = lookup_targets(tokenizer, [scene(DOG)]).word_of_token

    def word(text: str) -> str | None:
        (token,) = tokenizer(text, add_special_tokens=False)["input_ids"]
        return WORDS[found[token]] if found[token] >= 0 else None

    assert [word(f" {name}") for name in WORDS] == list(WORDS)
    assert [word(text) for text in (" dogs", " animals", " strawberries")] == ["dog", "animal", "strawberry"]
    assert [word(text) for text in (" the", " red", " true", ".")] == [None] * 4


def test_what_a_scene_holds(tokenizer: PreTrainedTokenizerBase) -> None:
    targets = lookup_targets(tokenizer, [scene(DOG, CAT), scene(SHAPE), scene(DOG, replace(DOG, box=(40, 0, 79, 8)))])

    def counts(row: int) -> dict[str, int]:
        return {word: int(n) for word, n in zip(WORDS, targets.counts[row], strict=True) if n}

    assert counts(0) == {"dog": 1, "cat": 1, "animal": 2}
    assert counts(1) == {"circle": 1}
    assert counts(2) == {"dog": 2, "animal": 2}
    assert targets.edges[0, WORDS.index("dog")].tolist() == [10, 20, 30, 50]


def test_loss_is_the_mean_over_words_and_over_edges_of_single_things() -> None:
    torch.manual_seed(0)
    head, hidden = nn.Linear(6, HEAD_WIDTH), torch.randn(2, 3, 6)
    word_of_token = torch.tensor([-1, 0, 1])
    counts = torch.tensor([[1, 0], [2, 1]], dtype=torch.int8)
    edges = torch.randint(0, NUM_BINS, (2, 2, 4)).to(torch.int8)
    ids, rows = torch.tensor([[1, 0, 2], [2, 1, 0]]), torch.tensor([1, 0])

    how_often, places = [], []
    for sequence, row in enumerate(rows.tolist()):
        for position, token in enumerate(ids[sequence].tolist()):
            word = int(word_of_token[token])
            if word < 0:
                continue
            outputs, count = head(hidden[sequence, position]), int(counts[row, word])
            how_often.append(outputs[: MAX_COUNT + 1].logsumexp(0) - outputs[count])
            for edge in range(4 if count == 1 else 0):
                bins = outputs[MAX_COUNT + 1 + edge * NUM_BINS :][:NUM_BINS]
                places.append(bins.logsumexp(0) - bins[int(edges[row, word, edge])])
    expected = torch.stack(how_often).mean() + torch.stack(places).mean()

    loss = lookup_loss(head, hidden, ids, LookupTargets(word_of_token, counts, edges), rows)

    assert len(how_often) == 4 and len(places) == 8
    assert torch.allclose(loss, expected, atol=1e-5)


def test_loss_where_nothing_is_there_once() -> None:
    head = nn.Linear(6, HEAD_WIDTH)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    targets = LookupTargets(torch.tensor([0]), torch.zeros(1, 1, dtype=torch.int8), torch.zeros(1, 1, 4))

    loss = lookup_loss(head, torch.randn(1, 2, 6), torch.zeros(1, 2, dtype=torch.long), targets, torch.tensor([0]))

    assert loss.item() == pytest.approx(math.log(MAX_COUNT + 1), abs=1e-6)
